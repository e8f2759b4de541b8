"""llmop: an LLM operator for Slurm. The packages below are listed, top to bottom, in docs/explanation/architecture.md."""

__version__ = "0.1.0.dev0"
