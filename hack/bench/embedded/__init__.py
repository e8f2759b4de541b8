"""llmop on this machine alone, without Slurm: what the benchmarks of its control API share."""
