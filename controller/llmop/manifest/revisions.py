"""Templates of revisions beside each other: what changed from one to the next, and how a deployment gets an older one back."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmop.domain import resources
from llmop.manifest import convert, merge

RESTARTED_AT = "spec.restartedAt"
_SHOWN = 4  # changed fields that a cause names


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Path to the value in template `after` of every leaf that is not the same in `before`; None for one that is not there."""
    old, new = (merge.leaves({"spec": template}) for template in (before, after))
    names = sorted(old.keys() | new.keys())
    return {name: new.get(name) for name in names if old.get(name) != new.get(name)}


def rolled_back(
    live: resources.Resource, template: Mapping[str, Any]
) -> tuple[resources.Resource, tuple[str, ...]]:
    """The deployment `live` with `template` in its spec, and the paths that this changes; itself where nothing would change.

    How many replicas there are and how they are replaced stays. What changes belongs to the manager "rollout", so that the next apply
    of the manifest that was undone says so instead of bringing it back. Raises errors.Invalid.
    """
    changed = differences(convert.template_json(live), template)
    if not changed:
        return live, ()
    return merge.take(live, changed, manager=merge.ROLLOUT_MANAGER), tuple(changed)


def causes(templates: Sequence[tuple[int, Mapping[str, Any]]]) -> list[str]:
    """Why each of these revisions was made, in words; they are (number, template), by number, the oldest that is kept first."""
    words: list[str] = []
    for index, (_, template) in enumerate(templates):
        words.append(_cause(templates[:index], template))
    return words


def _cause(before: Sequence[tuple[int, Mapping[str, Any]]], template: Mapping[str, Any]) -> str:
    if not before:
        return "<none>"
    for number, other in reversed(before[:-1]):
        if other == template:
            return f"back to revision {number}"
    changed = list(differences(before[-1][1], template))
    if changed == [RESTARTED_AT]:
        return "restarted"
    names = [name.removeprefix("spec.") for name in changed if name != RESTARTED_AT] or ["<none>"]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "changed " + ", ".join(names[:_SHOWN]) + more
