"""The servers that contracts are checked against."""

from tests.rigs.fixtures import pgvector_rig, postgres_rig

__all__ = ["pgvector_rig", "postgres_rig"]
