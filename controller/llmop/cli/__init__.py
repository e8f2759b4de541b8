"""llmctl: the client of the control API, with kubectl's habits.

Here belongs what a person at a terminal sees and types. It talks to the controller by gRPC and reads manifests to say where in a
file something is wrong; it never opens the store or talks to Slurm. Modules import grpc, YAML and rich inside functions: the
start-up of a command pays for what it uses only.
"""
