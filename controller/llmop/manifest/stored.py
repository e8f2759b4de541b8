"""What is stored, read also where the rules of this version refuse it: rules are for what people send.

An upgrade may bring a rule that an object from before breaks, and a row may be damaged. Such an object is held as it is, and people are
told (decision 49); all others go on. Of it that is read which is left without the fields that are refused.
"""

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from llmop.domain import deployment as deployments
from llmop.domain import errors, resources
from llmop.manifest import admit, convert, paths

_ROUNDS = 20  # without one refused field the next rule may be broken
_SHOWN = 3  # problems that a sentence names
# What keeps something from people: an object is not read with less of it than was said.
_KEEPING = {resources.ASSISTANT: ("filters",)}
_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found(Generic[_Value]):
    """`refusal` names fields, values and what to do; "" where nothing is refused. `value` is None where too little is left to be read."""

    value: _Value | None
    refusal: str = ""


def read(resource: resources.Resource, convert_to: Callable[[resources.Resource], _Value]) -> Found[_Value]:
    """`resource` by one of the functions of `convert`."""
    try:
        return Found(value=convert_to(resource))
    except errors.Invalid as error:
        rest = without_refused(resource.kind, resource.spec)
        if rest is not None and shows_more(resource, rest):
            rest = None
        value = None if rest is None else convert_to(dataclasses.replace(resource, spec=rest))
        return Found(value=value, refusal=sentence(error.violations))


def shows_more(resource: resources.Resource, rest: Mapping[str, Any], said: Collection[str] = ()) -> bool:
    """Whether `rest` of the spec keeps less from people than the spec does; by other fields than those that are `said` anew."""
    kept = _KEEPING.get(resource.kind, ())
    return any(name not in said and rest.get(name) != resource.spec.get(name) for name in kept)


def by_name(
    items: Iterable[resources.Resource], convert_to: Callable[[resources.Resource], _Value]
) -> dict[str, _Value]:
    """What can be read of `items`."""
    found = {each.name: read(each, convert_to).value for each in items}
    return {name: value for name, value in found.items() if value is not None}


def refusal(resource: resources.Resource) -> str:
    """Why this version refuses what is stored, "" where it does not. Kinds that the controller makes are never refused."""
    if resources.KINDS[resource.kind].read_only:
        return ""
    try:
        admit.read(resource.kind, resource.name, resource.spec)
    except errors.Invalid as error:
        return sentence(error.violations)
    return ""


def sentence(violations: Sequence[errors.Violation]) -> str:
    shown = "; ".join(f"{each.path}: {each.message.rstrip('.')}" for each in violations[:_SHOWN])
    more = f"; and {len(violations) - _SHOWN} more" if len(violations) > _SHOWN else ""
    return f"this version refuses what is stored: {shown}{more}. Correct that and apply the manifest; until then it is held as it is"


def deployment(
    resource: resources.Resource, templates: Iterable[Mapping[str, Any]]
) -> tuple[deployments.Deployment, str]:
    """The ModelDeployment that `resource` stores, and why it is refused, or "".

    `templates` are those of its revisions, the newest first. Of what is refused, its template is the newest of them that can be read:
    its replicas are made of that, and serve under that name.
    """
    found = read(resource, convert.deployment)
    if found.value is not None and not found.refusal:
        return found.value, ""
    made_of = (template(each) for each in templates)
    newest = next((each for each in made_of if each != _NO_TEMPLATE), None)
    held = found.value or convert.deployment(dataclasses.replace(resource, spec={"runtime": "none"}))
    kept = newest or (held.spec.template if found.value else _NO_TEMPLATE)
    if not kept.model_name:
        kept = dataclasses.replace(kept, model_name=resource.name)
    return dataclasses.replace(held, spec=dataclasses.replace(held.spec, template=kept)), found.refusal


_NO_TEMPLATE = deployments.Template(model_uri="", model_name="", runtime="")


def template(data: object) -> deployments.Template:
    """The Template of a revision. An empty one where nothing of it can be read."""
    spec = data if isinstance(data, Mapping) else {resources.STORED_TEXT: str(data)}
    made_of = resources.Resource(kind=resources.MODEL_DEPLOYMENT, name="", spec=spec)
    return read(made_of, lambda each: convert.template(each.spec)).value or _NO_TEMPLATE


def without_refused(kind: str, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """`spec` without what is refused in it. A mapping or an item that needs what is refused, or what is missing, goes as a whole.

    None where the spec itself would have to.
    """
    rest: dict[str, Any] = copy.deepcopy(dict(spec))
    for _ in range(_ROUNDS):
        try:
            admit.read(kind, "", rest)
        except errors.Invalid as error:
            refused = {_place(rest, paths.split(each.path)[1:]) for each in error.violations}
            if () in refused:
                return None
            for steps in sorted(refused, key=_from_behind, reverse=True):
                _remove(rest, steps)
        else:
            return rest
    return None


def _place(spec: Mapping[str, Any], steps: tuple[paths.Step, ...]) -> tuple[paths.Step, ...]:
    """The steps as far as there is something; one less where the last one leads nowhere: what holds it cannot do without it."""
    value: Any = spec
    for depth, step in enumerate(steps):
        if isinstance(value, Mapping) and step in value:
            value = value[str(step)]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return steps[:depth]
    return steps


def _from_behind(steps: tuple[paths.Step, ...]) -> tuple[tuple[int, str], ...]:
    """Later items first: the earlier ones keep their numbers."""
    return tuple((step, "") if isinstance(step, int) else (-1, step) for step in steps)


def _remove(spec: dict[str, Any], steps: tuple[paths.Step, ...]) -> None:
    *above, last = steps
    holder: Any = spec
    for step in above:
        holder = holder[step]
    del holder[last]
