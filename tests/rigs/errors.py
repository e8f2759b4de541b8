"""The one error of the rigs: what is missing on this machine, and the command that brings it."""

from __future__ import annotations


class RigError(Exception):
    """A rig can't start or didn't come up; the text says what to run or where to look."""
