"""Jobs that carry our installation's mark and belong to no replica."""

import dataclasses
from collections.abc import Mapping, Sequence

from llmop.domain import ids, job, site

PREFLIGHT_LIVES_S = 90_000.0  # nobody waits longer for the job of a preflight


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Orphans:
    """`cancel` are jobs of replicas that are gone, or orphans that the policy gives up; `report` are names for people.

    `seen` are the job names of the orphans: the caller remembers since when it has seen them.
    """

    cancel: tuple[str, ...] = ()
    report: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()


def find(
    jobs: Sequence[job.ObservedJob],
    installation: str,
    live: Mapping[str, str],
    tombstones: frozenset[str],
    policy: site.OrphanPolicy,
    grace_s: float,
    now: float,
    first_seen: Mapping[str, float],
) -> Orphans:
    """`live` maps the job names of all stored replicas to their uid, `tombstones` are the names of removed ones.

    `first_seen` is when, by our own clock, an orphan of this name was seen first: Slurm's clock may be ahead of ours.
    Jobs of other installations, and everybody else's, are never touched.
    """
    cancel: list[str] = []
    report: list[str] = []
    found: list[str] = []
    for seen in jobs:
        parts = ids.parse_job_name(seen.name)
        if parts is None or parts.installation != installation or not seen.state.is_live or seen.name in live:
            continue
        # Whoever sent them cancels them.
        if ids.is_canary(seen.name, installation) or ids.is_staging(seen.name, installation):
            continue
        is_young = seen.submitted_at is None or now - seen.submitted_at < PREFLIGHT_LIVES_S
        if ids.is_preflight(seen.name, installation) and is_young:
            continue
        if seen.state is job.JobState.COMPLETING:
            continue
        if seen.name in tombstones:
            cancel.append(seen.job_id)
            continue
        report.append(f"{seen.name} ({seen.job_id})")
        found.append(seen.name)
        since = min(
            first_seen.get(seen.name, now), seen.submitted_at if seen.submitted_at is not None else now
        )
        is_old = now - since >= grace_s
        if policy is site.OrphanPolicy.CANCEL and is_old:
            cancel.append(seen.job_id)
    return Orphans(cancel=tuple(cancel), report=tuple(sorted(report)), seen=tuple(found))
