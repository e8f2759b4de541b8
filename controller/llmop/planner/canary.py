"""The canary: a held job that is read back and cancelled, to see what a site's plugins make of the jobs that are submitted.

It never runs: plugins act at submission, and a job that waits for a node could not tell before the first replica. What it
says decides which fences of the submit protocol can be trusted (`domain.fences`), and what stands in for the others.
"""

import dataclasses
from collections.abc import Sequence

from llmop.domain import ids, job
from llmop.domain.fences import Canary, Fences, Identity

TIME_LIMIT_S = 420  # an odd one: a site that sets its own shows
RENEWED_S = 86_400.0  # plugins change without a new version
RETRY_S = 30.0
RETRY_MAX_S = 600.0
SHORT_JOB_AGE_S = 120
CUT = 80

WAITING = "waiting for the canary job, which shows what this site makes of jobs that are submitted"
NO_IDENTITY = (
    "this site changes both the name and the comment of jobs, so that llmop could not find its own again: it submits none. "
    "Ask your site to leave the name or the comment of jobs named llmop-... alone"
)


def is_due(known: Canary | None, version: str, generation: int, now: float) -> bool:
    """At first contact, when Slurm's version or the Cluster's spec has changed, and once a day."""
    if known is None:
        return True
    age_s = now - known.seen_at
    return (known.version, known.generation) != (version, generation) or abs(age_s) >= RENEWED_S


def retry_delay_s(failures: int) -> float:
    return float(min(RETRY_MAX_S, RETRY_S * 2.0 ** min(max(failures - 1, 0), 10)))


def request(
    installation: str, uid: str, directory: str, options: Sequence[tuple[str, str]]
) -> job.JobRequest:
    """`options` are those of a replica: sites treat jobs by partition and account."""
    name = ids.canary_name(installation, uid)
    kept = tuple(
        (option, value) for option, value in options if option not in ("time", "time-min", "comment")
    )
    return job.JobRequest(
        name=name,
        comment=name,
        options=kept,
        script="#!/bin/sh\nsleep 1\n",
        directory=directory,
        time_limit_s=TIME_LIMIT_S,
        held=True,
    )


def judge(
    asked: job.JobRequest, seen: job.ObservedJob, *, version: str, generation: int, now: float
) -> Canary:
    """What the site made of the canary. Only a job that waits still shows its dependency."""
    waits = seen.state is job.JobState.PENDING
    return Canary(
        seen_at=now,
        version=version,
        generation=generation,
        name_kept=seen.name == asked.name,
        comment_kept=seen.comment == asked.comment,
        dependency_kept="singleton" in seen.dependency if waits else None,
        time_limit_kept=seen.time_limit_s == TIME_LIMIT_S,
        stored_name=seen.name[:CUT],
        stored_comment=seen.comment[:CUT],
        stored_time_limit_s=seen.time_limit_s,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One fence or source of truth: whether it works here (None = not known), and what stands in where it does not."""

    name: str
    works: bool | None
    found: str
    substitute: str = ""


def table(
    seen: Canary | None, capabilities: job.Capabilities | None, *, writes_files: bool | None = None
) -> tuple[Row, ...]:
    """What works here, for people; a substitute only where something does not.

    `writes_files`: agents report through the inbox, because they do not reach the controller; None = none was heard.
    """
    return (
        *(_of_jobs(seen) if seen is not None else ()),
        *(_of_site(capabilities) if capabilities else ()),
        *((_of_channel(writes_files=writes_files),) if writes_files is not None else ()),
    )


def _of_channel(*, writes_files: bool) -> Row:
    files = "files in the shared directory's inbox; news and orders take seconds, on a network file system up to a minute"
    return Row(
        name="AgentChannel",
        works=not writes_files,
        found="some agents do not reach the controller" if writes_files else "agents reach the controller",
        substitute=files if writes_files else "",
    )


def _of_jobs(seen: Canary) -> tuple[Row, ...]:
    fences = Fences.of(seen)
    if fences.identity is Identity.NAME:
        by = ""
    elif fences.identity is Identity.COMMENT:
        by = "jobs are found by their comment, which holds the name"
    else:
        by = "none: nothing is submitted"
    claim = "the claim in the shared directory: a twin starts no engine and ends; lost submissions settle three times as long"
    return (
        Row(
            name="JobName", works=seen.name_kept, found=_kept(seen.name_kept, seen.stored_name), substitute=by
        ),
        Row(
            name="JobComment",
            works=seen.comment_kept,
            found=_kept(seen.comment_kept, seen.stored_comment),
            substitute="" if seen.comment_kept or seen.name_kept else "none",
        ),
        Row(
            name="Singleton",
            works=fences.singleton if seen.dependency_kept is not None else None,
            found=_singleton(seen),
            substitute="" if fences.singleton else claim,
        ),
        Row(
            name="TimeLimit",
            works=seen.time_limit_kept,
            found="kept"
            if seen.time_limit_kept
            else f"{TIME_LIMIT_S} s became {_seconds(seen.stored_time_limit_s)}",
            substitute=""
            if seen.time_limit_kept
            else "a replica's end is read from Slurm, not from the manifest",
        ),
    )


def _of_site(capabilities: job.Capabilities) -> tuple[Row, ...]:
    age_s = capabilities.min_job_age_s
    remembers = age_s == 0 or age_s >= SHORT_JOB_AGE_S
    memory = (
        "sacct" if capabilities.accounting else "exit records; an end that nobody wrote down is shown as Lost"
    )
    private = capabilities.values.get("PrivateData", "none") or "none"
    return (
        Row(
            name="Accounting",
            works=capabilities.accounting,
            found="sacct" if capabilities.accounting else "none",
            substitute=""
            if capabilities.accounting
            else "exit records in the shared directory and heartbeats",
        ),
        Row(
            name="JobMemory",
            works=remembers,
            found=f"MinJobAge {age_s} s" if age_s else "ended jobs are never forgotten",
            substitute="" if remembers else memory,
        ),
        Row(
            name="OthersVisible",
            works=private == "none",
            found=f"PrivateData {private}",
            substitute="" if private == "none" else "nothing is needed: llmop looks at its own account only",
        ),
    )


def _kept(kept: bool, stored: str) -> str:
    return "kept" if kept else f"became {stored!r}" if stored else "was taken away"


def _singleton(seen: Canary) -> str:
    if seen.dependency_kept is None:
        return "not seen: the canary was not held, and ran at once"
    if not seen.dependency_kept:
        return "was taken away"
    return "kept" if seen.name_kept else "kept, but it counts jobs by their name"


def _seconds(value: int | None) -> str:
    return "no limit" if value is None else f"{value} s"
