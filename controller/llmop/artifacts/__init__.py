"""Images and weights on their way to a cluster: resolving, staging, listing, removing.

One process (`worker`) stages one artifact; `runner` starts it for the controller. What is decided (which files, is a lock's holder
gone, what may be removed) is pure and lies apart from what touches disk and network. Names are in `domain.artifact`, the decision
whether a replica may be made is in `planner.artifacts`.
"""
