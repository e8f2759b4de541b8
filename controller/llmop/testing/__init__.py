"""Fakes that ship with llmop: what its own simulation and the tests of those who build on it run against.

Here belong stand-ins for the world (clock, Slurm, store) that behave, and the worlds made of them; no test lives here, and no
product code imports this package. A contract test holds every fake to what the real thing does.
"""
