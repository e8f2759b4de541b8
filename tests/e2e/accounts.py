"""A Unix account that was made a moment ago: an empty home, a folder of its project, its first look at a Slurm; and its terminals."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.pages.terminals import Terminals, processes
from tests.rigs.processes import need_account
from tests.rigs.slurm import SlurmRig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """`project` is its folder on the rig's shared file system."""

    name: str
    home: Path
    project: Path


@contextlib.contextmanager
def new_account(rig: SlurmRig) -> Iterator[Account]:
    """Afterwards nothing of it runs, on the rig or here, and it is gone with its home."""
    name = f"llmopnew{os.getpid()}"
    unix = need_account(name)
    account = Account(name=name, home=Path(unix.pw_dir), project=rig.shared / name)
    account.project.mkdir()
    os.chown(account.project, unix.pw_uid, unix.pw_gid)
    try:
        yield account
    finally:
        rig.cancel_all()
        for line in [*processes(account.home), *processes(account.project)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def terminals(rig: SlurmRig, account: Account, venv: Path, words: Mapping[str, str]) -> Iterator[Terminals]:
    """With llmop in PATH; `words` as `Terminals` has them."""
    environment = rig.environment_of(account.name)
    environment["PATH"] = f"{venv / 'bin'}:{environment['PATH']}"
    made = Terminals(account.home, account.home, environment=environment, words=words, account=account.name)
    try:
        yield made
    finally:
        made.close()
