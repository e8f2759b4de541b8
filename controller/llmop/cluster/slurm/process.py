"""Running one command of Slurm: with an environment made from nothing, for a limited time, and with bounded output."""

import asyncio
import contextlib
import dataclasses
import os
import pwd
import signal
from collections.abc import Mapping, Sequence

from llmop.cluster.slurm import states

_MOST_OUTPUT = 64 << 20  # bytes; 10,000 jobs print 3 MB
_MOST_ERRORS = 64 << 10
_PIPES_CLOSE_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended. `problem` is set, and the rest means nothing, when it did not end by itself or is too loud."""

    code: int = -1
    output: str = ""
    errors: str = ""
    problem: str = ""
    started: bool = True

    def why(self, command: str) -> str:
        """Why it failed, for people; "" when it did not."""
        if self.problem or self.code == 0:
            return self.problem
        return states.said(self.errors) or f"{command} ended with code {self.code} and without a word"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """The account that the commands run as, and what they are given to find Slurm."""

    uid: int
    variables: Mapping[str, str]

    @classmethod
    def own(cls, environ: Mapping[str, str]) -> "Account":
        """This process's. PATH and SLURM_CONF come from `environ`; variables of users change what the commands print and do."""
        uid = os.geteuid()
        account = pwd.getpwuid(uid)
        variables = {
            "PATH": environ.get("PATH") or os.defpath,
            "HOME": account.pw_dir,
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
        }
        if environ.get("SLURM_CONF"):
            variables["SLURM_CONF"] = environ["SLURM_CONF"]
        return cls(uid=uid, variables=variables)

    @property
    def for_queries(self) -> Mapping[str, str]:
        """English, and times as epoch seconds (SLURM_TIME_FORMAT takes any strftime(3) format)."""
        return {**self.variables, "LC_ALL": "C", "TZ": "UTC", "SLURM_TIME_FORMAT": "%s"}

    @property
    def for_submissions(self) -> Mapping[str, str]:
        """Jobs inherit what sbatch runs with, so this is not about how things are printed."""
        return {**self.variables, "LANG": "C.UTF-8"}


async def run(
    argv: Sequence[str], *, environment: Mapping[str, str], timeout_s: float, stdin: bytes = b""
) -> Ended:
    """Runs a command in its own session, for so long; whatever happens, it has ended when this returns."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return Ended(started=False, problem=f"{argv[0]} cannot be started: {error.strerror or error}")
    try:
        async with asyncio.timeout(timeout_s):
            _, output, errors = await asyncio.gather(
                _feed(process, stdin), _read(process, _MOST_OUTPUT), _head(process.stderr)
            )
            code = await process.wait()
    except TimeoutError:
        return Ended(problem=f"{argv[0]} did not end within {timeout_s:g} s and was killed")
    finally:
        await asyncio.shield(_end(process))  # a cancelled caller must not leave a process
    if output is None:
        return Ended(problem=f"{argv[0]} printed more than {_MOST_OUTPUT >> 20} MiB and was killed")
    return Ended(code=code, output=output, errors=errors)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    if process.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it says is read anyway
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _read(process: asyncio.subprocess.Process, at_most: int) -> str | None:
    """Its whole output; None, and the process is killed, when there are more than `at_most` bytes."""
    assert process.stdout is not None
    chunks: list[bytes] = []
    left = at_most
    while chunk := await process.stdout.read(1 << 16):
        left -= len(chunk)
        if left >= 0:
            chunks.append(chunk)
        else:
            chunks.clear()
            _kill(process)
    return b"".join(chunks).decode(errors="replace") if left >= 0 else None


async def _head(stream: asyncio.StreamReader | None) -> str:
    """The beginning; the rest is read too, so that the writer does not wait, and dropped."""
    assert stream is not None
    kept = b""
    while chunk := await stream.read(1 << 16):
        kept += chunk[: _MOST_ERRORS - len(kept)]
    return kept.decode(errors="replace")


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kills the command and what it started, unless it has been waited for already."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a command that did not end by itself."""
    if process.returncode is not None:
        return
    _kill(process)
    # asyncio tells of the end only when the pipes are read to their end, which a process that left the session can
    # delay for ever.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PIPES_CLOSE_S):
            await asyncio.gather(_head(process.stdout), _head(process.stderr))
            await process.wait()
