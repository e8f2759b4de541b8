"""Private servers the tests run against: a real Slurm, a real Postgres, real container images.

Belongs here: starting, stopping and observing such a server, without any code of llmop, so that what a test sees
through a rig is independent of what it checks. Does not belong here: assertions, and fakes of our own interfaces.
Everything but `fixtures` needs the Python standard library only, so `hack/dev-slurm` runs with any Python 3.11.
"""
