"""Fixtures of the rigs, one for a whole test run. A conftest imports the ones it needs.

What a rig needs and this machine lacks fails the test, with the command that brings it: a skip would hide it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rigs.errors import RigError
from tests.rigs.images import engine_image
from tests.rigs.install import user_venv
from tests.rigs.postgres import PostgresRig
from tests.rigs.slurm import SlurmRig


@pytest.fixture(scope="session")
def slurm_rig() -> Iterator[SlurmRig]:
    """A private Slurm of four nodes with four GPUs each."""
    rig = SlurmRig(nodes=4)
    try:
        rig.start()
    except RigError as error:
        pytest.fail(f"no private Slurm: {error}", pytrace=False)
    yield rig
    rig.stop()


@pytest.fixture(scope="session")
def postgres_rig() -> Iterator[PostgresRig]:
    """A private Postgres server; make a database of your own with `database`."""
    try:
        rig = PostgresRig().start()
    except RigError as error:
        pytest.fail(f"no private Postgres: {error}", pytrace=False)
    yield rig
    rig.stop()


@pytest.fixture(scope="session")
def pgvector_rig() -> Iterator[PostgresRig]:
    """A private Postgres server with pgvector; make a database of your own with `database`."""
    try:
        rig = PostgresRig(pgvector=True).start()
    except RigError as error:
        pytest.fail(f"no private Postgres with pgvector: {error}", pytrace=False)
    yield rig
    rig.stop()


@pytest.fixture(scope="session")
def engine_sif() -> Path:
    """A SIF with python3, readable by ordinary accounts."""
    try:
        return engine_image()
    except RigError as error:
        pytest.fail(f"no container image: {error}", pytrace=False)


@pytest.fixture(scope="session")
def llmop_venv() -> Path:
    """A virtual environment with this checkout's llmop, readable by ordinary accounts."""
    try:
        return user_venv()
    except RigError as error:
        pytest.fail(f"llmop can't be installed for ordinary accounts: {error}", pytrace=False)
