"""Fixtures of the end-to-end tests: the rigs, and an installation of llmop on a private Slurm of each module's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.installation import Installation
from tests.rigs.fixtures import engine_sif, llmop_venv, postgres_rig, slurm_rig
from tests.rigs.slurm import SlurmRig

__all__ = ["engine_sif", "llmop_venv", "postgres_rig", "slurm_rig"]  # fixtures

_numbers = itertools.count(1)


@pytest.fixture
def install(slurm_rig: SlurmRig, llmop_venv: Path) -> Iterator[Callable[..., Installation]]:
    """Makes a started installation; whatever happens, nothing of it is left after the test."""
    made: list[Installation] = []

    def start(**options: Any) -> Installation:
        each = Installation(slurm_rig, llmop_venv, name=f"i{next(_numbers)}", **options)
        made.append(each)
        return each.start()

    yield start
    for each in made:
        each.stop()
