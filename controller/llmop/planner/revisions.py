"""Revisions of a deployment: the newest, the one that new replicas are made of, and those that nobody needs any more."""

from collections.abc import Mapping, Sequence

from llmop.domain import staging
from llmop.planner import assess, values
from llmop.planner.draft import Draft


def newest(desired: values.Desired, names: values.Names, draft: Draft) -> values.Revision:
    """That of the template as it is now, which is made where there is none; while paused the newest that there is."""
    last = max(desired.revisions, key=lambda each: each.number, default=None)
    if last is not None and last.hash == desired.template_hash:
        return last
    if is_paused(desired) or desired.is_held:
        return last or _no_revision(desired)
    number = last.number + 1 if last is not None else 1
    fresh = names()
    revision = values.Revision(
        number=number,
        hash=desired.template_hash,
        template=desired.deployment.spec.template,
        pins=_pins_of(desired),
        name=f"{desired.deployment.name[:50].rstrip('-')}-{number}-{fresh.suffix}",
        uid=fresh.uid,
    )
    if desired.deployment.deleted_at is not None:
        return last or revision
    draft.actions.append(values.CreateRevision(revision=revision))
    return revision


def _no_revision(desired: values.Desired) -> values.Revision:
    """Stands for the first revision of a deployment that was paused before it had one: nothing is made of it."""
    template = desired.deployment.spec.template
    return values.Revision(number=0, hash="", template=template, name="", uid="")


def is_paused(desired: values.Desired) -> bool:
    """What is being deleted is not held up by a pause."""
    return desired.deployment.spec.paused and desired.deployment.deleted_at is None


def made_of(desired: values.Desired, newest: values.Revision) -> values.Revision:
    """The revision that new replicas are made of: the newest, while paused the oldest that still runs or did last."""
    if not is_paused(desired) or desired.is_held:
        return newest
    stored = {each.number: each for each in desired.revisions}
    running = [
        each.revision
        for each in desired.replicas
        if each.end is None and each.drain is None and each.deleted_at is None and each.revision in stored
    ]
    oldest = min(running, default=desired.record.current_revision)
    return stored.get(twins(desired.revisions).get(oldest, oldest), newest)


def twins(kept: Sequence[values.Revision]) -> Mapping[int, int]:
    """Number of a revision -> that of the newest one with the same template and the same bytes, for those that are not it themselves.

    Somebody has gone back to a template: its replicas that still run are what the newer revision asks for, and count as its own.
    A restart is not such a thing, because its time is in the template's hash.
    """
    last = {(each.hash, each.pins): each.number for each in sorted(kept, key=lambda each: each.number)}
    found = {each.number: last[each.hash, each.pins] for each in kept}
    return {number: twin for number, twin in found.items() if twin != number}


def _pins_of(desired: values.Desired) -> tuple[staging.Pin, ...]:
    """The same template again (an undo) means the same bytes again, although a tag may have moved meanwhile."""
    same = [each for each in desired.revisions if each.hash == desired.template_hash]
    return max(same, key=lambda each: each.number).pins if same else ()


def prune(
    desired: values.Desired, replicas: Sequence[assess.Assessment], needed: set[int], draft: Draft
) -> None:
    """Those beyond the limit that no replica uses."""
    is_last_pass = desired.deployment.deleted_at is not None and not desired.replicas
    in_use = {each.facts.revision for each in replicas} | (set() if is_last_pass else needed)
    spare = [each for each in desired.revisions if each.number not in in_use]
    limit = 0 if desired.deployment.deleted_at is not None else desired.deployment.spec.revision_history_limit
    for revision in spare[: max(0, len(spare) - limit)]:
        draft.actions.append(values.RemoveRevision(revision=revision))
