"""Tribunals: several drafts, critics who read them, and a judge, behind the name of a model.

`trial` decides (values in, the next calls out), `runner` makes the calls, `routes` answers clients.
"""
