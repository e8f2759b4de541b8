"""The servers that contracts are checked against."""

from tests.rigs.fixtures import postgres_rig

__all__ = ["postgres_rig"]
