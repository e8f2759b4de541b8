"""The control API: the gRPC server, its servicers, and the translation between messages and the domain.

Here belongs what a call needs between the socket and the store. What a manifest means is `manifest`, what to do about it is
`planner`, who does it is `reconciler`; nothing here talks to Slurm.
"""
