"""The driver of a real Slurm: runs its commands and says what came of it."""

import asyncio
import contextlib
import dataclasses
import os
import pwd
import signal
from collections.abc import Mapping, Sequence

from llmop.clock import Clock
from llmop.cluster.slurm import parse, states
from llmop.cluster.slurm.script import sbatch_argv
from llmop.domain.job import (
    Capabilities,
    History,
    JobRequest,
    ObservedJob,
    Refused,
    Snapshot,
    SubmitOutcome,
    Submitted,
    SubmitUnknown,
)

_MOST_OUTPUT = 64 << 20  # bytes; 10,000 jobs print 3 MB
_MOST_ERRORS = 64 << 10
_PIPES_CLOSE_S = 5.0
_IDS_PER_CALL = 50  # older scancel sends one request for each id
_NAMES_PER_CALL = 50
_EARLIEST = 1_000_000  # sacct takes no smaller number after "uts"
_NO_ACCOUNTING = ("accounting storage is disabled", "not running a supported accounting_storage plugin")
_OVER_ALREADY = ("invalid job id specified", "job/step already completing or completed")
_SHOWN_SETTINGS = (
    *(
        "ClusterName",
        "SLURM_VERSION",
        "MinJobAge",
        "KillWait",
        "MessageTimeout",
        "MaxArraySize",
        "MaxJobCount",
    ),
    *("JobRequeue", "PreemptMode", "PreemptType", "PreemptParameters", "PreemptExemptTime"),
    *("SlurmctldParameters", "SchedulerParameters", "SchedulerType", "AccountingStorageType"),
    *(
        "AccountingStorageEnforce",
        "AccountingStoreFlags",
        "EnforcePartLimits",
        "PrivateData",
        "OverTimeLimit",
    ),
    *("ProctrackType", "JobSubmitPlugins", "CliFilterPlugins", "RequeueExit", "RequeueExitHold"),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Ended:
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


class SlurmCommands:
    """Implements `llmop.cluster.driver.Cluster` for the account that this process runs as.

    `environ` is where PATH and SLURM_CONF are taken from; nothing else of it reaches a command, because variables of
    users change what the commands print and do. A command that is over its time is killed: sbatch after
    `submit_timeout_s` (it sleeps and tries again for up to 120 s by itself), all others after `query_timeout_s`.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        environ: Mapping[str, str],
        submit_timeout_s: float = 180.0,
        query_timeout_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._submit_timeout_s = submit_timeout_s
        self._query_timeout_s = query_timeout_s
        self._uid = os.geteuid()
        account = pwd.getpwuid(self._uid)
        base = {
            "PATH": environ.get("PATH") or os.defpath,
            "HOME": account.pw_dir,
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
        }
        if environ.get("SLURM_CONF"):
            base["SLURM_CONF"] = environ["SLURM_CONF"]
        self._query_environment = {**base, "LC_ALL": "C", "TZ": "UTC", "SLURM_TIME_FORMAT": "%s"}
        # Jobs inherit what sbatch runs with, so this one is not about how things are printed.
        self._submit_environment = {**base, "LANG": "C.UTF-8"}
        self._snapshots = asyncio.Lock()
        self._has_accounting = True  # until Slurm says otherwise

    async def submit(self, request: JobRequest) -> SubmitOutcome:
        ended = await self._run(
            sbatch_argv(request),
            environment=self._submit_environment,
            timeout_s=self._submit_timeout_s,
            stdin=request.script.encode(),
        )
        if not ended.started:
            return Refused(message=ended.problem)
        job_id = parse.sbatch(ended.output)
        if ended.problem:
            return SubmitUnknown(message=ended.problem)
        if ended.code == 0 and job_id is not None:
            return Submitted(job_id=job_id)
        if ended.code <= 0 or job_id is not None:
            said = states.said(ended.errors)
            return SubmitUnknown(
                message=f"sbatch ended with code {ended.code} and printed no job id. {said}".strip()
            )
        return states.submit_failure(ended.errors)

    async def snapshot(self) -> Snapshot:
        argv = [
            *("squeue", "--noheader", "--array", "--states=all", f"--user={self._uid}"),
            f"--Format={parse.SQUEUE_FORMAT}",
        ]
        async with self._snapshots:
            started_at = self._clock.now()
            ended = await self._run(argv)
            taken_at = self._clock.now()
        problem = ended.why("squeue")
        jobs: tuple[ObservedJob, ...] = ()
        if not problem and not ended.output and "error:" in ended.errors:
            # squeue ends with 0 after some errors, and an empty queue may be one of those.
            problem = states.said(ended.errors)
        if not problem:
            try:
                jobs = parse.squeue(ended.output)
            except parse.Garbled as garbled:
                problem = str(garbled)
        return Snapshot(started_at=started_at, taken_at=taken_at, jobs=jobs, problem=problem)

    async def history(self, names: Sequence[str], since: float) -> History:
        found: list[ObservedJob] = []
        for begin in range(0, len(names), _NAMES_PER_CALL):
            if not self._has_accounting:
                break
            argv = [
                *("sacct", "-X", "-P", "-n", "-D", f"--delimiter={parse.FIELD_END}", f"--user={self._uid}"),
                *(
                    "-S",
                    f"uts{max(_EARLIEST, int(since))}",
                    f"--name={','.join(names[begin : begin + _NAMES_PER_CALL])}",
                ),
                *("-o", ",".join(parse.SACCT_FIELDS)),
            ]
            ended = await self._run(argv)
            if any(text in ended.errors for text in _NO_ACCOUNTING):
                self._has_accounting = False
                break
            problem = ended.why("sacct")
            if problem:
                return History(available=True, problem=problem)
            try:
                found += parse.sacct(ended.output)
            except parse.Garbled as garbled:
                return History(available=True, problem=str(garbled))
        if not self._has_accounting:
            return History(available=False, problem="this Slurm keeps no accounting")
        wanted, earliest = frozenset(names), int(since)
        return History(
            available=True,
            jobs=tuple(
                job
                for job in found
                if job.name in wanted and (job.submitted_at is None or job.submitted_at >= earliest)
            ),
        )

    async def cancel(self, job_ids: Sequence[str]) -> str:
        problems = [
            await self._scancel(*job_ids[begin : begin + _IDS_PER_CALL], ignoring=_OVER_ALREADY)
            for begin in range(0, len(job_ids), _IDS_PER_CALL)
        ]
        return "; ".join(dict.fromkeys(problem for problem in problems if problem))

    async def capabilities(self) -> Capabilities | str:
        shown = await self._run(["scontrol", "show", "config"])
        listed = await self._run(["scontrol", "show", "partition", "-o"])
        problem = shown.why("scontrol") or listed.why("scontrol")
        if problem:
            return problem
        settings = parse.config(shown.output)
        numbers = {
            name: parse.seconds(settings.get(name, ""))
            for name in ("MinJobAge", "KillWait", "MessageTimeout")
        }
        missing = [name for name in ("SLURM_VERSION", *numbers) if not settings.get(name)]
        if missing:
            return f"scontrol show config does not say {', '.join(missing)}"
        self._has_accounting = settings.get("AccountingStorageType", "").endswith("/slurmdbd")
        return Capabilities(
            version=settings["SLURM_VERSION"],
            min_job_age_s=numbers["MinJobAge"] or 0,
            kill_wait_s=numbers["KillWait"] or 0,
            message_timeout_s=numbers["MessageTimeout"] or 0,
            accounting=self._has_accounting,
            partitions=tuple(one["PartitionName"] for one in parse.partitions(listed.output)),
            values={name: settings[name] for name in _SHOWN_SETTINGS if settings.get(name)},
        )

    async def _scancel(self, *arguments: str, ignoring: Sequence[str] = ()) -> str:
        ended = await self._run(["scancel", *arguments])
        if ended.problem or ended.code == 0:
            return ended.problem
        lines = ended.errors.splitlines()
        left = [line for line in lines if not any(text in line.lower() for text in ignoring)]
        return "" if lines and not left else dataclasses.replace(ended, errors="\n".join(left)).why("scancel")

    async def _run(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        stdin: bytes = b"",
    ) -> _Ended:
        """Runs a command in its own session, for so long; whatever happens, it has ended when this returns."""
        timeout_s = timeout_s or self._query_timeout_s
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment or self._query_environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return _Ended(started=False, problem=f"{argv[0]} cannot be started: {error.strerror or error}")
        try:
            async with asyncio.timeout(timeout_s):
                _, output, errors = await asyncio.gather(
                    _feed(process, stdin), _read(process, _MOST_OUTPUT), _head(process.stderr)
                )
                code = await process.wait()
        except TimeoutError:
            return _Ended(problem=f"{argv[0]} did not end within {timeout_s:g} s and was killed")
        finally:
            await asyncio.shield(_end(process))  # a cancelled caller must not leave a process
        if output is None:
            return _Ended(problem=f"{argv[0]} printed more than {_MOST_OUTPUT >> 20} MiB and was killed")
        return _Ended(code=code, output=output, errors=errors)


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
