"""The shell around the planner: looks, asks for a plan, carries it out, writes it down.

No decisions are made here. `loop` takes keys from the queue; `observe` looks at clusters; `gather` builds the planner's input from
the mirror of the store; `execute` turns a plan into one transaction and then into effects; `submit` runs sbatch.
"""
