"""What whoever runs an installation asks of it: `discover`, `preflight`, `doctor` (AdminService).

Here is what runs and reads; what follows from it is decided in `planner` and, where it is about one of these answers only, in a
pure module beside it. Nothing here changes a stored object.
"""
