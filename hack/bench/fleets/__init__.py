"""What the benchmarks of whole fleets share: a private Slurm of many nodes with an installation on it, and what can be seen of both."""
