"""What a client asks of a tribunal: OpenAI's chat completion request, checked. Pure."""

from typing import Any, NamedTuple

from llmop.workloads.bodies import object_of
from llmop.workloads.refusals import invalid
from llmop.workloads.tribunal.trial import Question

# They go on to drafters and the judge, whose engines check them.
_PASSED_ON = ("top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "response_format", "user")
_READ = ("model", "messages", "stream", "stream_options", "temperature", "n")
_LIMITS = ("max_tokens", "max_completion_tokens")
_IGNORED = ("metadata", "store")  # say nothing about the answer
_FIELDS = frozenset((*_PASSED_ON, *_READ, *_LIMITS, *_IGNORED))
_MOST_MESSAGES = 2048


class Asked(NamedTuple):
    """`streams` says how the answer goes out; `wants_usage` asks for a last event with it."""

    model: str
    question: Question
    streams: bool
    wants_usage: bool


def read(body: bytes) -> Asked:
    """Raises Refused."""
    given = {name: value for name, value in object_of(body).items() if value is not None}
    for name in sorted(given.keys() - _FIELDS):
        raise invalid(name[:100], f"is nothing that a tribunal takes; there are {', '.join(sorted(_FIELDS))}")
    model = given.get("model")
    if not isinstance(model, str):
        raise invalid("model", "must name a tribunal")
    if given.get("n", 1) != 1:
        raise invalid("n", "must be 1: a tribunal gives one answer")
    streams = given.get("stream", False)
    if not isinstance(streams, bool):
        raise invalid("stream", "must be true or false")
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        raise invalid("stream_options", "must be an object")
    if type(given.get("seed", 0)) is not int:
        raise invalid("seed", "must be a whole number")
    question = Question(
        messages=_messages(given.get("messages")),
        options={name: given[name] for name in _PASSED_ON if name in given},
        temperature=_number(given, "temperature"),
        max_tokens=_limit(given),
    )
    return Asked(model, question, streams, options.get("include_usage") is True)


def _messages(value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list) or not value or len(value) > _MOST_MESSAGES:
        raise invalid("messages", f"must be a list of 1 to {_MOST_MESSAGES} messages")
    for number, each in enumerate(value):
        if not isinstance(each, dict) or not isinstance(each.get("role"), str):
            raise invalid(f"messages[{number}]", "must be an object with a role")
    return tuple(value)


def _number(given: dict[str, Any], name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(name, "must be a number")
    return value


def _limit(given: dict[str, Any]) -> int | None:
    found = None
    for name in _LIMITS:
        value = given.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise invalid(name, "must be a whole number above 0")
        found = value
    return found
