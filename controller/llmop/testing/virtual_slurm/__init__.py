"""A Slurm in memory: deterministic, driven by a fake clock, with the faults of a real one on demand.

What it prints it prints as Slurm does, and reads it back with the driver's own parser, so that the parser and the tables of
words work in every simulation. It keeps to what tests saw a Slurm 22.05 do; the contract suite of the drivers holds it to that.

The inside of a job is not simulated here. Whoever drives the world hears of a job's process by `state.Hooks` and ends it with
`VirtualSlurm.finish`.

`driver.VirtualSlurm` is made of layers, of which each knows those below: `state` (what slurmctld has on its books, and time), `life` (what becomes
of a job by itself), `hands` (what people do to jobs), `site` (what happens to nodes and partitions), `outages` (what happens to slurmctld). `shape`
is what a cluster is like, `faults` what may go wrong with a call, `placement` decides which job starts, `text` is how jobs are printed.
"""
