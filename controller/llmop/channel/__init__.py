"""The controller's side of the agent channel: who may speak for a replica, what was heard, what was ordered.

`desk` is the logic without HTTP, `listener` the HTTPS server, `certificates` the installation's own CA. Nothing is decided here:
claims are judged by `planner.claim`.
"""
