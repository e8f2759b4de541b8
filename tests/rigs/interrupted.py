"""A stager that is killed at every effect it has on the disk, one after the other, and each time taken up by a second one.

Run as a program: `python -m tests.rigs.interrupted ORDER DIRECTORY`, where DIRECTORY/<k>/ is the shared directory of the k-th try. Prints
one line for each try: the effect at which it was killed, whether it had finished the artifact, and what the second stager said.
Everything is imported once and then forked, or a try would take a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
from pathlib import Path

import huggingface_hub.file_download
import huggingface_hub.hf_api  # noqa: F401  (imported before the forks, not in each)

from llmop.artifacts import hub, order, worker
from llmop.clock import SystemClock
from llmop.domain.errors import LlmopError

EFFECTS = frozenset(
    {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.utime", "os.truncate", "subprocess.Popen"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main(text: str, directory: str) -> None:
    wanted = order.load(text)
    number = 0
    while True:
        number += 1
        shared = Path(directory) / str(number)
        shared.mkdir(mode=0o700)
        mine = dataclasses.replace(wanted, shared_dir=str(shared))
        killed_at, _ = _fork(mine, number)
        is_finished = worker.Stager(mine, SystemClock()).is_finished
        _, said = _fork(mine, 0)
        line = {"try": number, "killed": killed_at, "finished": is_finished, "then": said}
        print(json.dumps(line), flush=True)
        if not killed_at:
            return


def _fork(mine: order.Order, kill_at: int) -> tuple[str, str]:
    """(the effect at which it was killed, what it said at its end). 0 = it is left alone."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_a_stager(mine, kill_at, writing)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        heard = pipe.read().splitlines()
    status = os.waitpid(child, 0)[1]
    killed = [line.removeprefix("killed ") for line in heard if line.startswith("killed ")]
    assert bool(killed) == os.WIFSIGNALED(status), (heard, status)
    return (killed[0] if killed else ""), (heard[-1] if heard else "")


def _be_a_stager(mine: order.Order, kill_at: int, writing: int) -> None:
    shared, effects, me = mine.shared_dir, 0, os.getpid()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal effects
        if event not in EFFECTS or not kill_at:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        if event != "subprocess.Popen" and shared not in str(arguments[0]):
            return
        effects += 1
        if effects == kill_at:
            os.write(writing, f"killed {event} {str(arguments[0]).rpartition(shared)[2]}\n".encode())
            os.kill(me, signal.SIGKILL)

    sys.addaudithook(hook)
    code = 1
    try:
        stager = worker.Stager(mine, SystemClock())
        hub.prepare_environment(stager.home)
        with contextlib.redirect_stdout(io.StringIO()):
            said = stager.run()
        code = 0
    except LlmopError as error:
        said = str(error)
    os.write(writing, said.encode() + b"\n")
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
