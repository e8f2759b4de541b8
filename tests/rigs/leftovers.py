"""Ending private Slurms: the ones of this test run, and what a killed run left behind."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from pathlib import Path

from tests.rigs.errors import RigError
from tests.rigs.processes import Identity, machine_lock, need_root, processes_with, wait_for

PREFIX = "llmop-slurm-"
MARK = "LLMOP_RIG"  # in the environment of the daemons and, through slurmd, of slurmstepd; jobs don't get it


def end(directory: Path) -> None:
    """Ends the rig in `directory`, whoever started it and however that one died, and removes the directory."""
    need_root("ending a private Slurm")
    try:
        content = json.loads((directory / "rig.json").read_text())
    except FileNotFoundError:
        raise RigError(f"{directory} holds no private Slurm") from None
    keepers = [Identity(**kept["keeper"]) for kept in content["kept"]]
    daemons = [Identity(**kept["daemon"]) for kept in content["kept"]]
    for identity in keepers:
        identity.kill(signal.SIGTERM)
    conf = str(directory / "etc" / "slurm.conf")

    def none_left() -> bool:
        # A keeper takes all its descendants along. Daemons and jobs whose keeper was killed with -9 are known by
        # what they run with: the rig's mark, or a job of this Slurm. A shell that merely has SLURM_CONF is no job.
        orphans = processes_with(
            lambda env: (
                env.get(MARK) == str(directory) or (env.get("SLURM_CONF") == conf and "SLURM_JOB_ID" in env)
            )
        )
        lost = [identity for identity in (*daemons, *orphans) if identity not in keepers]
        living = [identity for identity in keepers if identity.alive()]
        for identity in lost if not living else ():
            identity.kill()
        return not living and not any(identity.alive() for identity in lost)

    wait_for(f"the processes of {directory} to end", none_left, timeout=30)
    # Not at once: a user's process may still be writing while the tree is walked.
    shutil.rmtree(directory, ignore_errors=True)
    wait_for(f"{directory} to be removed", lambda: _removed(directory), timeout=10)


def remove_debris() -> None:
    """Ends the rigs whose test run is gone (kill -9, power cut)."""
    with machine_lock("debris"):
        for directory in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}*"):
            try:
                used = is_used(directory)
            except FileNotFoundError:
                continue  # being made or removed by its owner right now
            if not used:
                end(directory)


def _removed(directory: Path) -> bool:
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def is_used(directory: Path) -> bool:
    """Whether the rig's owner lives or, for one that has none, any of its daemons does."""
    content = json.loads((directory / "rig.json").read_text())
    if content["owner"] is not None:
        return Identity(**content["owner"]).alive()
    return any(Identity(**kept["keeper"]).alive() for kept in content["kept"])
