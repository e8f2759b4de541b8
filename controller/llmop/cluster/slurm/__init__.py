"""A real Slurm, by its command line.

`script`, `parse` and `states` are pure: text in, values out. `commands` runs the programs. Nothing here decides what to do
about a job; that is the planner's.
"""
