"""Apply: what a manager says about some fields becomes part of an object that others have opinions on too.

The rules are those of Kubernetes' server-side apply (docs/reference/using-api/server-side-apply.md), kept small. A field is a leaf:
mappings are merged key by key, lists and the JSON body of a warm-up are replaced as a whole. Each manager owns the leaves it
wrote last time.
"""

import copy
import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any

from llmop.domain import errors, resources, rollouts
from llmop.manifest import admit, limits, paths, stored
from llmop.manifest.schema_v1alpha1 import ATOMIC

SCALE_MANAGER = "scale"
ROLLOUT_MANAGER = "rollout"
REPLICAS = "spec.replicas"
SCALING = "spec.scaling"

_ROOTS = (("spec",), ("metadata", "labels"), ("metadata", "annotations"))

Leaves = dict[str, Any]


class Verdict(enum.StrEnum):
    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """`resource` is what to store; `changed_paths` are the leaves that differ from before, sorted (all of them when created)."""

    resource: resources.Resource
    verdict: Verdict
    changed_paths: tuple[str, ...]


def apply(
    live: resources.Resource | None,
    intent: Mapping[str, Any],
    *,
    manager: str,
    force: bool = False,
    namespace: str = "",
) -> Applied:
    """`live` with everything that `intent` (a manifest as data) says.

    Raises errors.Invalid with every violation of the result, and errors.Conflict when a field that another manager owns
    has another value and `force` is not set. Nothing in `live` but spec, labels, annotations and ownership changes; a verdict
    of "unchanged" may still carry new ownership.
    """
    if live is None:
        created = admit.admit(intent, namespace=namespace)
        owned = {manager: tuple(sorted(leaves(intent)))}
        return Applied(
            resource=dataclasses.replace(created, owned_fields=owned),
            verdict=Verdict.CREATED,
            changed_paths=tuple(sorted(leaves(admit.document(created)))),
        )
    if limits.violations(intent) or not _has_shape(intent):
        admit.admit(intent, namespace=namespace)  # says what is wrong
    wanted = leaves(intent)
    current = leaves(admit.document(live))
    others = {name: frozenset(owned) for name, owned in live.owned_fields.items() if name != manager}
    disputed = {
        path: sorted(name for name, owned in others.items() if path in owned)
        for path, value in wanted.items()
        if not _same(current.get(path), value)
    }
    disputed |= {
        path: sorted(name for name, owned in others.items() if path in owned)
        for path in _replaced(wanted, current)
    }
    admitted = _admitted(live, intent, manager, others)
    # What goes with a field that this version refuses: an apply that says nothing of it must not scale somebody's deployment down.
    kept = leaves(admit.document(admitted))
    disputed |= {
        path: sorted(name for name, owned in others.items() if path in owned)
        for path in current.keys() - kept.keys()
    }
    disputed = {path: names for path, names in disputed.items() if names}
    if disputed and not force:
        raise _conflict(live, disputed)

    owned_fields = {name: tuple(sorted(owned - disputed.keys())) for name, owned in others.items()}
    owned_fields[manager] = tuple(sorted(wanted))
    result = dataclasses.replace(
        live,
        spec=admitted.spec,
        labels=admitted.labels,
        annotations=admitted.annotations,
        owned_fields={name: owned for name, owned in sorted(owned_fields.items()) if owned},
    )
    changed = _changed(current, leaves(admit.document(result)))
    return Applied(
        resource=result,
        verdict=Verdict.CONFIGURED if changed else Verdict.UNCHANGED,
        changed_paths=changed,
    )


def scale(live: resources.Resource, replicas: int) -> resources.Resource:
    """`live` with another number of replicas. The number belongs to the manager "scale" from now on.

    A later apply that leaves `replicas` out keeps it; one that names another number is a conflict. Raises errors.Invalid.
    """
    return take(live, {REPLICAS: replicas}, manager=SCALE_MANAGER)


def take(live: resources.Resource, values: Mapping[str, Any], *, manager: str) -> resources.Resource:
    """`live` with other values of some leaves, None = without it. They belong to `manager` alone from now on, absent ones too:
    an apply that names another value is a conflict. Raises errors.Invalid.
    """
    document = copy.deepcopy(admit.document(live))
    for path, value in values.items():
        steps = paths.split(path)
        if value is None:
            _remove(document, steps)
        else:
            _set(document, steps, value)
    admitted = admit.admit(document, namespace=live.namespace)
    owned = {
        name: tuple(path for path in held if path not in values) for name, held in live.owned_fields.items()
    }
    owned[manager] = tuple(sorted({*owned.get(manager, ()), *values}))
    return dataclasses.replace(
        live, spec=admitted.spec, owned_fields={name: kept for name, kept in sorted(owned.items()) if kept}
    )


def leaves(document: Mapping[str, Any]) -> Leaves:
    """Path to value of everything in a manifest that can be owned: spec, labels and annotations, without empty mappings."""
    found: Leaves = {}
    for root in _ROOTS:
        value: Any = document
        for step in root:
            value = value.get(step) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping):
            _collect(value, paths.build(root), found)
    return found


def _collect(value: Any, path: str, found: Leaves) -> None:
    if isinstance(value, Mapping) and path not in ATOMIC:
        for key, item in value.items():
            _collect(item, paths.join(path, key), found)
    else:
        found[path] = value


def _has_shape(intent: Mapping[str, Any]) -> bool:
    """Whether `intent` is enough of a manifest to be merged; what else is wrong is found in the result."""
    metadata, spec = intent.get("metadata"), intent.get("spec")
    if not isinstance(metadata, Mapping) or not isinstance(spec, Mapping):
        return False
    return all(isinstance(metadata.get(name, {}), Mapping) for name in ("labels", "annotations"))


def _admitted(
    live: resources.Resource,
    intent: Mapping[str, Any],
    manager: str,
    others: Mapping[str, frozenset[str]],
) -> resources.Resource:
    """What of `live` this version refuses and `intent` does not say does not stand in the way of `intent`: nobody could mend it."""
    merged = _merge(live, intent, manager, others)
    try:
        return admit.admit(merged, namespace=live.namespace)
    except errors.Invalid as error:
        rest = stored.without_refused(live.kind, live.spec) or {}
        if rest == live.spec or stored.shows_more(live, rest, intent["spec"]):
            raise
        try:
            mended = _merge(dataclasses.replace(live, spec=rest), intent, manager, others)
            return admit.admit(mended, namespace=live.namespace)
        except errors.Invalid:
            raise error from None


def _merge(
    live: resources.Resource,
    intent: Mapping[str, Any],
    manager: str,
    others: Mapping[str, frozenset[str]],
) -> dict[str, Any]:
    """The manifest of the result, before its defaults are filled in."""
    merged = copy.deepcopy(admit.document(live))
    wanted = leaves(intent)
    kept = frozenset().union(*others.values())
    for path in live.owned_fields.get(manager, ()):
        if path not in wanted and path not in kept:
            _remove(merged, paths.split(path))
    for key, value in intent.items():
        if key not in ("metadata", "spec"):
            merged[key] = value
    for key, value in intent["metadata"].items():
        if key not in ("labels", "annotations"):
            merged["metadata"][key] = value
    _choose_count(merged["spec"], live, wanted, kept)
    for root in _ROOTS:
        source: Any = intent
        target: Any = merged
        for step in root:
            source = source.get(step, {})
            target = target.setdefault(step, {})
        _overlay(target, source, paths.build(root))
    return merged


def _replaced(wanted: Leaves, current: Leaves) -> tuple[str, ...]:
    """Whoever asks for scaling takes the fixed number away."""
    return (REPLICAS,) if _has_scaling(wanted) and REPLICAS in current.keys() - wanted.keys() else ()


def _has_scaling(names: Iterable[str]) -> bool:
    return any(path == SCALING or path.startswith(f"{SCALING}.") for path in names)


def _choose_count(
    spec: dict[str, Any], live: resources.Resource, wanted: Leaves, kept: frozenset[str]
) -> None:
    """A fixed number or scaling, not both. Defaults of a scaling that nobody asks for any more go with it, and the number that it
    had decided on stays.
    """
    if _has_scaling(wanted):
        spec.pop("replicas", None)
    elif "scaling" in spec and not _has_scaling(kept):
        del spec["scaling"]
        spec["replicas"] = rollouts.wanted(live.spec, live.status)


def _overlay(target: dict[str, Any], value: Mapping[str, Any], path: str) -> None:
    for key, item in value.items():
        below = paths.join(path, key)
        if isinstance(item, Mapping) and below not in ATOMIC:
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _overlay(target[key], item, below)
        else:
            target[key] = copy.deepcopy(item)


def _set(document: dict[str, Any], steps: tuple[paths.Step, ...], value: Any) -> None:
    *above, last = steps
    holder: Any = document
    for step in above:
        if not isinstance(holder.get(step), dict):
            holder[step] = {}
        holder = holder[step]
    holder[last] = copy.deepcopy(value)


def _remove(document: dict[str, Any], steps: tuple[paths.Step, ...]) -> None:
    """Takes the leaf away, and mappings that are empty without it."""
    trail: list[tuple[dict[str, Any], str]] = []
    value: Any = document
    for step in steps:
        if not isinstance(value, dict) or step not in value:
            return
        trail.append((value, str(step)))
        value = value[step]
    for holder, key in reversed(trail):
        del holder[key]
        if holder or holder is document.get("spec"):
            return


def _same(first: Any, second: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    return bool(first == second)


def _changed(before: Leaves, after: Leaves) -> tuple[str, ...]:
    names = before.keys() | after.keys()
    return tuple(
        sorted(
            path
            for path in names
            if path not in before or path not in after or not _same(before[path], after[path])
        )
    )


def _conflict(live: resources.Resource, disputed: Mapping[str, list[str]]) -> errors.Conflict:
    count = f"{len(disputed)} conflict{'s' if len(disputed) > 1 else ''}"
    fields = "; ".join(f'{path} belongs to "{", ".join(names)}"' for path, names in sorted(disputed.items()))
    return errors.Conflict(
        f'{live.kind} "{live.name}": apply failed with {count}: {fields}. Leave the field out of the manifest to keep its value,'
        " write the value it has to share it, or apply with --force to take it over",
        paths=tuple(sorted(disputed)),
    )
