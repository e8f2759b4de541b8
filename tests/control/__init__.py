"""A control API for tests: a real server on a Unix socket, and the smallest manifests. Not the rigs (Slurm, Postgres) and no tests."""
