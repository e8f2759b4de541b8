"""The driver of a real Slurm: runs its commands and says what came of it."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence

from llmop.clock import Clock
from llmop.cluster.slurm import parse, process, states
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
        self._account = process.Account.own(environ)
        self._snapshots = asyncio.Lock()
        self._has_accounting = True  # until Slurm says otherwise

    async def submit(self, request: JobRequest) -> SubmitOutcome:
        ended = await process.run(
            sbatch_argv(request),
            environment=self._account.for_submissions,
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

    async def test_only(self, request: JobRequest) -> tuple[bool, str]:
        """What `sbatch --test-only` says of this very request (no job is made): whether it would be taken, and its words.

        It costs slurmctld a scheduling pass: for a person who asks, never for a loop.
        """
        ended = await process.run(
            [*sbatch_argv(request), "--test-only"],
            environment={
                **self._account.for_submissions,
                "LC_ALL": "C",
                "TZ": "UTC",
                "SLURM_TIME_FORMAT": "%s",
            },
            timeout_s=self._query_timeout_s,
            stdin=request.script.encode(),
        )
        if ended.code == 0 and not ended.problem:
            return True, parse.test_only(ended.errors)
        return False, ended.why("sbatch")

    async def snapshot(self) -> Snapshot:
        argv = [
            *("squeue", "--noheader", "--array", "--states=all", f"--user={self._account.uid}"),
            # Without it squeue asks for the federation first: three requests to slurmctld instead of two (sdiag, 22.05).
            "--local",
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
                *(
                    "sacct",
                    "-X",
                    "-P",
                    "-n",
                    "-D",
                    f"--delimiter={parse.FIELD_END}",
                    f"--user={self._account.uid}",
                ),
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

    async def signal(self, job_id: str) -> str:
        # --batch: the batch shell alone, which the agent has replaced (scancel(1)).
        return await self._scancel("--signal=USR1", "--batch", job_id)

    async def capabilities(self) -> Capabilities | str:
        asked_at = self._clock.now()
        shown = await self._run(["scontrol", "show", "config"])
        told_at, their_time = self._clock.now(), parse.config_time(shown.output)
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
            clock_ahead_s=None if their_time is None else their_time - (asked_at + told_at) / 2,
            values={name: settings[name] for name in _SHOWN_SETTINGS if settings.get(name)},
        )

    async def _scancel(self, *arguments: str, ignoring: Sequence[str] = ()) -> str:
        ended = await self._run(["scancel", *arguments])
        if ended.problem or ended.code == 0:
            return ended.problem
        lines = ended.errors.splitlines()
        left = [line for line in lines if not any(text in line.lower() for text in ignoring)]
        return "" if lines and not left else dataclasses.replace(ended, errors="\n".join(left)).why("scancel")

    async def _run(self, argv: Sequence[str]) -> process.Ended:
        return await process.run(argv, environment=self._account.for_queries, timeout_s=self._query_timeout_s)
