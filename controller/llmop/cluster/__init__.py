"""Where jobs run: the interface that the reconciler calls, and its drivers.

`slurm/` speaks to a real Slurm by its commands; `local.py` runs the same jobs as processes of this machine. Drivers report
facts and carry out single orders; they decide nothing. The virtual driver of the simulation is `testing.virtual_slurm`.
"""
