"""May a replica of this revision be made: is everything that it needs on the cluster?

A reference is resolved once, and what it was is written into the revision; then it is staged; then replicas are made. What is pinned
and has gone meanwhile (sites purge scratch file systems) is staged again, the same bytes.
"""

import dataclasses
from collections.abc import Sequence

from llmop.domain import artifact, conditions, staging
from llmop.planner import values

PERCENT = 10  # progress is told in steps of this size: a condition is not a progress bar
_Step = staging.Step


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """`is_open`: replicas may be made. `needs_user`: a person has to act, in the condition's words."""

    is_open: bool
    condition: conditions.Condition
    actions: tuple[values.Action, ...] = ()
    needs_user: bool = False
    recheck_at: float | None = None


def gate(desired: values.Desired, revision: values.Revision, seen: values.Observed) -> Gate:
    """For the revision that replicas are made of. A deployment that is going, or that cannot run as it stands, stages nothing."""
    template = revision.template
    needed = staging.wanted(desired.runtime, template) if desired.runtime is not None else ()
    if not needed:
        return Gate(is_open=True, condition=_condition(conditions.Status.TRUE, "LocalPaths", ""))
    cannot_run = desired.problems or desired.is_held or revision.number == 0
    if desired.deployment.deleted_at is not None or cannot_run:
        return Gate(is_open=False, condition=_condition(conditions.Status.UNKNOWN, "NotWanted", ""))
    pinned = {pin.reference: pin for pin in revision.pins}
    is_stored = any(each.uid == revision.uid for each in desired.revisions)
    actions: list[values.Action] = []
    views: list[tuple[artifact.Reference, staging.View]] = []
    for reference in needed:
        view = seen.artifacts.get(reference.text, staging.View())
        if reference.text not in pinned and view.digest and is_stored:
            pinned[reference.text] = staging.Pin(reference=reference.text, digest=view.digest)
        pin = pinned.get(reference.text)
        views.append((reference, view))
        if pin is None or not _is_ready(view):
            actions.append(
                values.StageArtifact(
                    reference=reference,
                    digest=pin.digest if pin is not None else "",
                    cluster=template.cluster,
                    secret_files=template.env_files,
                )
            )
    if len(pinned) > len(revision.pins):
        actions.insert(0, values.PinArtifacts(revision=revision, pins=tuple(pinned.values())))
    written = {pin.reference for pin in revision.pins}
    waiting = [(each, view) for each, view in views if each.text not in written or not _is_ready(view)]
    retries = [view.progress.retry_at for _, view in waiting if view.progress and view.progress.retry_at]
    return Gate(
        is_open=not waiting,
        condition=_told(waiting),
        actions=tuple(actions),
        needs_user=any(view.progress is not None and view.progress.needs_user for _, view in waiting),
        recheck_at=min(retries, default=None),
    )


def _is_ready(view: staging.View) -> bool:
    return view.progress is not None and view.progress.step is _Step.READY


def _told(waiting: Sequence[tuple[artifact.Reference, staging.View]]) -> conditions.Condition:
    """The condition. Of several the one that somebody has to look at first."""
    if not waiting:
        return _condition(conditions.Status.TRUE, "Staged", "")
    reference, view = min(waiting, key=lambda each: (_rank(each[1]), each[0].text))
    progress = view.progress
    if progress is None:
        return _condition(
            conditions.Status.UNKNOWN, "NotLookedYet", f"{reference.text} was not looked at yet"
        )
    if progress.step is _Step.FAILED:
        return _condition(conditions.Status.FALSE, progress.reason, progress.message)
    return _condition(conditions.Status.FALSE, str(progress.step), words(reference.text, progress))


def _rank(view: staging.View) -> int:
    if view.progress is None:
        return 2
    if view.progress.step is not _Step.FAILED:
        return 3
    return 0 if view.progress.needs_user else 1


def words(name: str, progress: staging.Progress) -> str:
    """How far it is. The same words for a while: whole steps of progress, no time."""
    match progress.step:
        case _Step.RESOLVING:
            return f"asking what {name} is now"
        case _Step.QUEUED:
            return f"{name} waits until others are staged"
        case _Step.WAITING:
            return f"another process stages {name}"
        case _Step.PENDING:
            return f"the job that stages {name} waits: {progress.message}"
        case _Step.DOWNLOADING if progress.total:
            percent = min(progress.done * 100 // progress.total, 100) // PERCENT * PERCENT
            return f"{name}: {percent} % of {staging.amount(progress.total)}"
        case _Step.DOWNLOADING:
            return f"{name} is being fetched"
        case _Step.BUILDING:
            return f"{name}: fetched, and the image is being made"
        case _:
            return f"{name}: fetched, and its checksums are being compared"


def _condition(status: conditions.Status, reason: str, message: str) -> conditions.Condition:
    return conditions.Condition(type="ArtifactsReady", status=status, reason=reason, message=message)
