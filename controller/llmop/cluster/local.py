"""The local driver: jobs are processes of this machine, and outlive the controller.

Each job has a directory and a runner (`local_runner`), which plays slurmstepd: it waits for the job's turn, starts the batch
script, enforces limits, and writes down how it ended. The driver reads what the runners wrote and sends them signals; it does so in
a thread of its own, one thing after the other.
"""

import asyncio
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmop.clock import Clock
from llmop.cluster import file_threads, local_runner
from llmop.cluster.slurm.states import pending_row, state_row
from llmop.domain import os_errors
from llmop.domain.job import (
    Capabilities,
    History,
    JobRequest,
    JobState,
    ObservedJob,
    Refused,
    Snapshot,
    SubmitOutcome,
    Submitted,
    SubmitUnknown,
)

PARTITION = "local"
_REGISTER_TIMEOUT_S = 30.0
_UNREGISTERED_AGE_S = 120.0  # a job directory without a runner for so long is the rest of a crash


class LocalCluster:
    """Implements `llmop.cluster.driver.Cluster` in `directory`, which is made when missing and belongs to it alone.

    `slots` is how many jobs may run at a time, None = any number. `environ` is where the jobs' PATH and LANG come from;
    nothing else of it reaches them. `min_job_age_s` is how long an ended job is remembered, `kill_wait_s` the time
    between TERM and KILL.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        environ: Mapping[str, str],
        slots: int | None = None,
        min_job_age_s: int = 300,
        kill_wait_s: int = 30,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._slots = slots
        self._min_job_age_s = min_job_age_s
        self._kill_wait_s = kill_wait_s
        account = pwd.getpwuid(os.geteuid())
        self._environment = {
            "PATH": environ.get("PATH") or os.defpath,
            "LANG": environ.get("LANG") or "C.UTF-8",
            "HOME": account.pw_dir,
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
        }
        self._is_made = False
        self._files = file_threads.FileThreads("local-cluster")

    def _make(self) -> None:
        """Once: a directory that goes away later must not look like one without jobs. Raises OSError."""
        if self._is_made:
            return
        # Nothing above the shared directory: its file system may not be mounted.
        for each in (self._directory.parent, self._directory):
            each.mkdir(mode=0o700, exist_ok=True)
        self._is_made = True

    async def submit(self, request: JobRequest) -> SubmitOutcome:
        try:
            job_id = await self._files.run(self._write_down, request)
        except OSError as error:
            return Refused(message=os_errors.sentence(error, self._directory))
        try:
            # Isolated and in a session of its own: neither the controller's environment nor its end reach it.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", local_runner.__file__, str(self._directory / job_id)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            # What was written down goes as the rest of a crash.
            return Refused(message=f"the runner cannot be started: {error.strerror}")
        try:
            async with asyncio.timeout(_REGISTER_TIMEOUT_S):
                code = await process.wait()
        except TimeoutError:
            return SubmitUnknown(message=f"the runner of job {job_id} did not register in time")
        if code != 0:
            return SubmitUnknown(message=f"the runner of job {job_id} ended with code {code}")
        return Submitted(job_id=job_id)

    async def snapshot(self) -> Snapshot:
        started_at = self._clock.now()
        try:
            jobs = await self._files.run(self._observe_all)
        except (OSError, ValueError) as error:
            return Snapshot(started_at=started_at, taken_at=self._clock.now(), problem=self._unread(error))
        return Snapshot(started_at=started_at, taken_at=self._clock.now(), jobs=jobs)

    async def history(self, names: Sequence[str], since: float) -> History:
        return History(available=False, problem="a local cluster keeps no accounting")

    async def cancel(self, job_ids: Sequence[str]) -> str:
        try:
            await self._files.run(self._terminate, job_ids)
        except (OSError, ValueError) as error:
            return self._unread(error)
        return ""

    async def signal(self, job_id: str) -> str:
        try:
            return await self._files.run(self._announce, job_id)
        except (OSError, ValueError) as error:
            return self._unread(error)

    async def capabilities(self) -> Capabilities | str:
        return Capabilities(
            version="local",
            min_job_age_s=self._min_job_age_s,
            kill_wait_s=self._kill_wait_s,
            message_timeout_s=0,
            accounting=False,
            partitions=(PARTITION,),
        )

    def _write_down(self, request: JobRequest) -> str:
        """Makes the job's directory, complete but for a runner; its id."""
        options = dict(request.options)
        self._make()
        with _locked(self._directory / "counter.lock"):
            counter = self._directory / "counter.json"
            number = (local_runner.read(counter) or {"last": 0})["last"] + 1
            while (self._directory / str(number)).exists():
                number += 1
            local_runner.write(counter, {"last": number})
        directory = self._directory / str(number)
        directory.mkdir(mode=0o700)
        try:
            script = directory / "script"
            script.touch(mode=0o600)
            script.write_text(request.script, encoding="utf-8")
            cpus = options.get("cpus-per-task", "")
            local_runner.write(
                directory / "job.json",
                {
                    "name": request.name,
                    "directory": request.directory,
                    "comment": options.get("comment", ""),
                    "submittedAt": self._clock.now(),
                    "timeLimit": request.time_limit_s,
                    "signalBefore": request.signal_before_end_s,
                    "killWait": self._kill_wait_s,
                    "slots": self._slots,
                    "environment": {**self._environment, **({"SLURM_CPUS_PER_TASK": cpus} if cpus else {})},
                },
            )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return str(number)

    def _observe_all(self) -> tuple[ObservedJob, ...]:
        self._make()
        job_ids = sorted((path.name for path in self._directory.iterdir() if path.name.isdecimal()), key=int)
        return tuple(job for job_id in job_ids if (job := self._observe(job_id)) is not None)

    def _unread(self, error: Exception) -> str:
        return f"the jobs in {self._directory} cannot be read: {error}"

    def _observe(self, job_id: str) -> ObservedJob | None:
        """What the runner wrote; a job whose runner died without a word has failed. Forgets jobs that ended long ago."""
        directory = self._directory / job_id
        job = local_runner.read(directory / "job.json")
        state = local_runner.read(directory / "state.json")
        now = self._clock.now()
        if job is None or state is None:  # being submitted, or the rest of a crash
            with contextlib.suppress(FileNotFoundError):
                if now - directory.stat().st_mtime > _UNREGISTERED_AGE_S:
                    shutil.rmtree(directory, ignore_errors=True)
            return None
        if state["state"] in local_runner.LIVE and not local_runner.is_alive(state["runner"]):
            state = (
                local_runner.read(directory / "state.json") or state
            )  # it may have ended in good order just now
            if state["state"] in local_runner.LIVE:
                state |= {
                    "state": state.get("final", "NODE_FAIL"),
                    "reason": "NodeDown",
                    "endedAt": now,
                    "status": signal.SIGKILL,  # the batch process dies with its runner
                }
                local_runner.write(directory / "state.json", state)
        if state["state"] not in local_runner.LIVE and now - state["endedAt"] > self._min_job_age_s:
            shutil.rmtree(directory, ignore_errors=True)
            return None
        return _observed(job_id, job, state)

    def _terminate(self, job_ids: Sequence[str]) -> None:
        """Those that there are and that are not over."""
        for job_id in job_ids:
            if job_id.isdecimal():
                state = local_runner.read(self._directory / job_id / "state.json")
                if state is not None and state["state"] in local_runner.LIVE:
                    local_runner.send(state["runner"], signal.SIGTERM)

    def _announce(self, job_id: str) -> str:
        state = local_runner.read(self._directory / job_id / "state.json") if job_id.isdecimal() else None
        if state is None or state["state"] != "RUNNING" or "batch" not in state:
            return f"job {job_id} does not run"
        local_runner.send(state["batch"], signal.SIGUSR1)
        return ""


def _observed(job_id: str, job: Mapping[str, Any], state: Mapping[str, Any]) -> ObservedJob:
    word, reason = state["state"], "" if state["reason"] == "None" else state["reason"]
    kind = state_row(word).state
    waiting = pending_row(reason) if kind is JobState.PENDING else None
    started = "startedAt" in state
    status = state.get("status") if kind.is_terminal else None
    node = local_runner.node_name() if started else ""
    return ObservedJob(
        job_id=job_id,
        name=job["name"],
        state=kind,
        state_text=word,
        reason=reason,
        pending=waiting.pending_class if waiting else None,
        explanation=waiting.sentence if waiting else "",
        partition=PARTITION,
        node=node,
        node_list=node,
        submitted_at=job["submittedAt"],
        started_at=state.get("startedAt"),
        ends_at=state["endedAt"] if kind.is_terminal else state.get("endsAt"),
        time_limit_s=job["timeLimit"] or None,
        exit_code=None if status is None else status >> 8 & 0xFF,
        signal=None if status is None else status & 0x7F,
        comment=job["comment"],
        dependency="singleton(unfulfilled)" if reason == "Dependency" else "",
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
