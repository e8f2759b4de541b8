"""The shell around the planner: looks, asks for a plan, carries it out, writes it down.

No decisions are made here. `loop` takes keys from the queue and makes a pass over each; `lookout` looks at clusters when they are
due, and `observe` keeps what it saw of one; `gather` builds the planner's input from the mirror of the store; `execute` turns a plan
into one transaction and then into effects; `submit` runs sbatch, `cancel` scancel. `ports` is what the composition root gives.
"""
