"""The pages about the private Slurm do what they say: as root the rig itself, as an ordinary account llmop on one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.accounts import new_account, terminals
from tests.pages.terminals import Terminals, processes
from tests.rigs.errors import RigError
from tests.rigs.fixtures import engine_sif, llmop_venv
from tests.rigs.leftovers import end
from tests.rigs.ports import free_port
from tests.rigs.slurm import SlurmRig

__all__ = ["engine_sif", "llmop_venv"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "howto"
DIRECTORY = "/var/tmp/llmop-dev-slurm"


@pytest.fixture
def rig() -> Iterator[SlurmRig]:
    made = SlurmRig(nodes=2)
    try:
        yield made.start()
    except RigError as error:
        pytest.fail(f"no private Slurm: {error}", pytrace=False)
    finally:
        made.stop()


def test_root_starts_looks_at_and_ends_a_private_slurm(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = Path(f"{DIRECTORY}-{os.getpid()}")  # somebody may have the usual one
    words = {
        "sudo -u llmoptest": "runuser -u llmoptest --",
        "sudo ": "",
        **{
            f"hack/dev-slurm {word}": f"hack/dev-slurm {word} --dir {directory}"
            for word in ("up", "status", "down")
        },
        f"{DIRECTORY}/": f"{directory}/",
    }
    made = Terminals(
        tmp_path_factory.mktemp("root"), ROOT, environment={"PATH": os.environ["PATH"]}, words=words
    )
    try:
        made.follow(PAGES / "run-a-private-slurm.md")
    finally:
        made.close()
        if directory.exists():
            end(directory)
    assert not directory.exists()


def test_an_ordinary_account_runs_llmop_on_the_rig(rig: SlurmRig, llmop_venv: Path, engine_sif: Path) -> None:
    port = str(free_port())
    with new_account(rig) as account:
        words = {
            "/var/tmp/llmop-test-engine-....sif": str(engine_sif),
            "images: [/var/tmp]": f"images: [{engine_sif.parent}]",
            f"{DIRECTORY}/shared": str(account.project),
            "/home/llmoptest": str(account.home),
            "192.0.2.2": "127.0.0.1",
            "22.05.8": _release(rig),
            "8089": port,
        }
        with terminals(rig, account, llmop_venv, words) as made:
            made.follow(PAGES / "run-on-a-cluster.md")
        assert [] == processes(account.home)
        assert {"COMPLETED", "CANCELLED"} >= {job.state for job in rig.squeue()}


def _release(rig: SlurmRig) -> str:
    done = subprocess.run(["sinfo", "--version"], env=rig.env, capture_output=True, text=True, check=True)
    return done.stdout.split()[1]
