"""An installation whose jobs are real and whose agents are a crowd: for more replicas than this machine has memory for."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fleets import crowd, place
from fleets.place import Installation

BEHIND_A_DOOR = 100  # agents


@contextlib.contextmanager
def installation(name: str, *, replicas: int) -> Iterator[Installation]:
    """Ready for so many replicas of the runtime `simulator`. Needs root on Debian or Ubuntu."""
    number = -(-replicas // BEHIND_A_DOOR)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmop-bench-")))
        folder.chmod(0o755)
        program = shutil.copy(crowd.__file__, folder)
        script = folder / "stand-in"
        doors = folder / "doors"
        script.write_text(crowd.stand_in(doors, number))
        script.chmod(0o755)
        here = stack.enter_context(place.installation(name, python=script))
        stack.callback(_mourn, folder)
        shown = stack.enter_context((folder / "crowd.log").open("wb"))
        doors.mkdir()
        for door in (doors / str(index) for index in range(number)):
            door.mkdir()
            shutil.chown(door, here.rig.uid, here.rig.gid)
            stack.enter_context(_behind(here, program, door, shown))
        yield here


@contextlib.contextmanager
def _behind(here: Installation, program: str, door: Path, log: object) -> Iterator[None]:
    argv = [str(here.venv / "bin/python"), program, str(door)]
    process = subprocess.Popen(**here.rig.as_user(argv), stdout=log, stderr=log)  # type: ignore[call-overload]
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _mourn(folder: Path) -> None:
    """What the crowd said, when that was more than agents say."""
    text = (folder / "crowd.log").read_text(errors="replace")
    if "Traceback" in text:
        print(text[-4000:])
