"""Desired and actual state on SQLite or Postgres, with one schema.

`interface.py` says what the rest may ask for; `sql.py` and its neighbours do it. No decisions, no Slurm, no wire formats.
"""
