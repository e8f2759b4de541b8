"""Engines for tests: real processes that answer prompts. Not the rigs (Slurm, Postgres, images) and no tests."""
