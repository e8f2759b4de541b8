"""Label selectors: which objects a list, a watch or a command means."""

import dataclasses
import enum
import re
from collections.abc import Mapping

_KEY = r"(?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_EQUALITY = re.compile(rf"(?P<key>{_KEY})\s*(?P<operator>==|=|!=)\s*(?P<value>{_VALUE})")
_SET = re.compile(rf"(?P<key>{_KEY})\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EXISTS = re.compile(rf"(?P<absent>!\s*)?(?P<key>{_KEY})")


class Operator(enum.StrEnum):
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "!"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """One term. `values` is empty for EXISTS and ABSENT."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """NOT_IN also matches objects that lack the key."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.ABSENT:
                return self.key not in labels


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selector:
    """All requirements have to match; without any, everything does."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse(text: str) -> Selector:
    """Reads `team=nlp,tier!=test,stage in (a, b),owner,!old`. Raises ValueError with a sentence for people."""
    if not text.strip():
        return Selector()
    return Selector(requirements=tuple(_requirement(term.strip(), text) for term in _terms(text)))


def _terms(text: str) -> list[str]:
    """The parts between commas that are not inside parentheses."""
    return re.split(r",(?![^()]*\))", text)


def _requirement(term: str, text: str) -> Requirement:
    if found := _EQUALITY.fullmatch(term):
        operator = Operator.NOT_IN if found["operator"] == "!=" else Operator.IN
        return Requirement(key=found["key"], operator=operator, values=frozenset({found["value"]}))
    if found := _SET.fullmatch(term):
        values = [value.strip() for value in found["values"].split(",")]
        if all(re.fullmatch(_VALUE, value) for value in values):
            return Requirement(
                key=found["key"], operator=Operator(found["operator"]), values=frozenset(values)
            )
    if found := _EXISTS.fullmatch(term):
        operator = Operator.ABSENT if found["absent"] else Operator.EXISTS
        return Requirement(key=found["key"], operator=operator)
    raise ValueError(
        f'label selector "{text}": cannot read "{term}"; write key=value, key!=value, key in (a,b), key notin (a,b), key or !key'
    )
