"""Engines that need a starter of ours: each module runs alone as `python -m`, inside a job, and is handed everything by argv and files.

What belongs here: a thin `main` around an inference engine that is a Python wheel. What does not: engine descriptions (the
YAML runtimes) and anything that the controller imports.
"""
