"""The program that runs inside a replica's job: it starts the engine, proves and watches it, and talks to the controller.

`agent.py` is one file that is copied to the cluster and run alone by the oldest python3 of a compute node (3.6), so it
imports the standard library only, and nothing of llmop. Nothing else belongs here: the controller's side of the channel
lives with the controller. The contract between the two is docs/reference/agent-channel.md.
"""
