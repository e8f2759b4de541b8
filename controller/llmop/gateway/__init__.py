"""The REST data plane: keys, routing, and bytes in and out between clients and engines.

What belongs here: the hot path (`downstream`, `request`, `attempts`, `exchange`, `relay`, `upstream`, `pool`), the decisions it takes as
pure functions (`routes`, `admission`, `routing`, `retry`, `sse`, `usage`, `limits`, `heads`, `repeats`, `errors`), what it knows (`fleet`,
`table`, `keys`) and counts (`bill`, `limiter`, `tally`, `spool`), requests that wait (`queue`, `dispatch`, `waiting`: pure; `desk`, `stay`),
the few other routes (`app`, with `listing`, which says how models are and is pure, and `page`, the chat page), and several processes as one
gateway (`crew`, `worker_process`, `link`, `cells`, `sums`). `endpoints` is the only module that speaks gRPC.

What does not: Slurm, SQL, planning, files and batches. The gateway keeps serving while the controller is away, so it
imports none of the packages that the controller is made of. Prompts and answers are never logged.
"""
