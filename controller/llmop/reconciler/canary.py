"""Sends the canary of one cluster and remembers what came of it (`planner.canary` decides)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from llmop.clock import Clock
from llmop.cluster import driver
from llmop.domain import deployment, fences, ids, job, profile, site, times
from llmop.planner import canary
from llmop.runtimes import options

MOST_TRIES = 3  # with the options of so many profiles, the last time with none
HANGS_S = 10.0  # an sbatch that took longer was not refused but met a Slurm in trouble


class CanaryWatch:
    """What is known of a site's treatment of jobs. `step` is called by one task at a time."""

    def __init__(self, where: site.Site, cluster: driver.Cluster, clock: Clock, installation: str) -> None:
        self._where = where
        self._cluster = cluster
        self._clock = clock
        self._installation = installation
        self.known: fences.Canary | None = None
        self.problem = ""  # why there is no result (yet)
        self._may_assume = False  # every way of submitting it was rejected: replicas may know better options
        self._failures = 0
        self._retry_at: float | None = None  # monotonic
        self._left: set[str] = set()  # canaries that may still be there

    @property
    def _is_needed(self) -> bool:
        return self._where.driver is site.DriverKind.SLURM

    @property
    def holding(self) -> fences.Fences:
        return fences.Fences.of(self.known) if self.known is not None else fences.STANDARD

    @property
    def unproven(self) -> str:
        """Why nothing may be submitted yet; "" once it may."""
        if not self._is_needed or self.known is not None or self._may_assume:
            return ""
        return f"{canary.WAITING}: {self.problem}" if self.problem else canary.WAITING

    def restore(self, stored: Mapping[str, Any]) -> None:
        """What an earlier controller has found out (the Cluster's status.canary). Before the first look: it says how jobs are found."""
        if self.known is None:
            self.known = read(stored)

    async def step(
        self,
        generation: int,
        capabilities: job.Capabilities | None,
        profiles: Sequence[profile.Profile],
        jobs: Sequence[job.ObservedJob],
    ) -> bool:
        """After a complete snapshot `jobs`. True when something is different now."""
        if not self._is_needed or capabilities is None:
            return False
        await self._clean(jobs)
        now = self._clock.now()
        if not canary.is_due(self.known, capabilities.version, generation, now):
            return False
        if self._retry_at is not None and self._clock.monotonic() < self._retry_at:
            return False
        before = (self.known, self.problem, self._may_assume)
        found = await self._send(capabilities.version, generation, profiles)
        if found is not None:
            self.known, self.problem, self._may_assume = found, "", False
            self._failures, self._retry_at = 0, None
        else:
            self._failures += 1
            self._retry_at = self._clock.monotonic() + canary.retry_delay_s(self._failures)
        return (self.known, self.problem, self._may_assume) != before

    async def _send(
        self, version: str, generation: int, profiles: Sequence[profile.Profile]
    ) -> fences.Canary | None:
        """Tries the options of profiles until one is not refused in some way."""
        said: list[str] = []
        is_certain = True
        for wanted in _ways(profiles):
            asked = canary.request(self._installation, self._clock.uid(), self._where.shared_dir, wanted)
            began = self._clock.monotonic()
            outcome = await self._cluster.submit(asked)
            if isinstance(outcome, job.Rejected):
                said.append(outcome.message)
                continue
            is_certain = False
            if isinstance(outcome, job.Refused):
                said.append(outcome.message)
                break
            seen, problem = await self._read_back(asked, outcome)
            if seen is not None:
                return canary.judge(
                    asked, seen, version=version, generation=generation, now=self._clock.now()
                )
            said.append(problem)
            # Plugins refuse in words that are in no table; a Slurm that hangs is not asked again at once.
            if isinstance(outcome, job.Submitted) or self._clock.monotonic() - began > HANGS_S:
                break
        self.problem = "; ".join(dict.fromkeys(said))
        self._may_assume = is_certain
        return None

    async def _read_back(
        self, asked: job.JobRequest, outcome: job.Submitted | job.SubmitUnknown
    ) -> tuple[job.ObservedJob | None, str]:
        """The canary as the site stored it, cancelled again; or why it was not found."""
        job_id = outcome.job_id if isinstance(outcome, job.Submitted) else ""
        snapshot = await self._cluster.snapshot()
        seen = next(
            (
                each
                for each in snapshot.jobs
                if each.job_id == job_id or asked.name in (each.name, each.comment)
            ),
            None,
        )
        self._left |= {job_id} - {""} if seen is None else {seen.job_id}
        await self._clean(snapshot.jobs)
        if isinstance(outcome, job.SubmitUnknown):
            return seen, outcome.message
        return seen, snapshot.problem or "the canary job was submitted and is not in the queue"

    async def _clean(self, jobs: Sequence[job.ObservedJob]) -> None:
        """Cancels canaries: the last one, and those that a controller left which died."""
        ours = {
            each.job_id
            for each in jobs
            if each.state.is_live
            and any(ids.is_canary(text, self._installation) for text in (each.name, each.comment))
        }
        doomed = sorted(ours | self._left)
        if doomed and not await self._cluster.cancel(doomed):
            self._left.clear()


def _ways(profiles: Sequence[profile.Profile]) -> list[tuple[tuple[str, str], ...]]:
    """Options to try: of the profiles that say most first, then none at all."""
    ranked = sorted(
        profiles, key=lambda each: (not each.account, not each.partition, each.gpus_per_node, each.name)
    )
    ways = [
        options.options(
            deployment.Template(model_uri="", model_name="", runtime="", gpus=1 if each.gres else 0), each
        )
        for each in ranked[: MOST_TRIES - 1]
    ]
    return [*dict.fromkeys(ways), ()]


def read(stored: Mapping[str, Any]) -> fences.Canary | None:
    """What `write` wrote; None for nothing, and for what another version wrote."""
    try:
        return fences.Canary(
            seen_at=times.from_rfc3339(stored["seenAt"]),
            version=str(stored["version"]),
            generation=int(stored["generation"]),
            name_kept=bool(stored["nameKept"]),
            comment_kept=bool(stored["commentKept"]),
            dependency_kept=stored["dependencyKept"],
            time_limit_kept=bool(stored["timeLimitKept"]),
            stored_name=str(stored["storedName"]),
            stored_comment=str(stored["storedComment"]),
            stored_time_limit_s=stored["storedTimeLimit"],
        )
    except (KeyError, TypeError, ValueError):
        return None


def write(known: fences.Canary) -> dict[str, Any]:
    """As JSON, for status.canary."""
    return {
        "seenAt": times.to_rfc3339(known.seen_at),
        "version": known.version,
        "generation": known.generation,
        "nameKept": known.name_kept,
        "commentKept": known.comment_kept,
        "dependencyKept": known.dependency_kept,
        "timeLimitKept": known.time_limit_kept,
        "storedName": known.stored_name,
        "storedComment": known.stored_comment,
        "storedTimeLimit": known.stored_time_limit_s,
    }


def rows(
    known: fences.Canary | None, capabilities: job.Capabilities | None, *, writes_files: bool | None
) -> list[dict[str, Any]]:
    """The capability table as JSON, for status.fences."""
    words = {True: "True", False: "False", None: "Unknown"}
    return [
        {**dataclasses.asdict(row), "works": words[row.works]}
        for row in canary.table(known, capabilities, writes_files=writes_files)
    ]
