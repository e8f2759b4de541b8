"""What several routes read of their requests."""

from collections.abc import Callable, Collection
from typing import Any

import orjson
from starlette.requests import Request

from llmop.domain.attributes import LONGEST_KEY, LONGEST_VALUE, MOST, is_value
from llmop.workloads.lines import can_be_written
from llmop.workloads.refusals import Refused, invalid

TOO_DEEP = "the body is nested too deeply: at most 250 levels are passed on"


async def json_object(request: Request, limit: int, fields: Collection[str] | None = None) -> dict[str, Any]:
    """The body, of at most `limit` bytes; with `fields`, those may be in it and no others. Raises Refused."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise Refused(413, "body_too_large", f"the body is larger than {limit} bytes")
    value = object_of(body)
    if fields is not None:
        check_fields(value, fields)
    return value


def object_of(body: bytes | bytearray) -> dict[str, Any]:
    """Raises Refused."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "invalid_request", f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refused(400, "invalid_request", "the body must be a JSON object")
    if not can_be_written(value):
        raise Refused(400, "invalid_request", TOO_DEEP)
    return value


def check_fields(value: dict[str, Any], fields: Collection[str], above: str = "") -> None:
    """Raises Refused for one that is not among `fields`; one that is null is one that was left out. `above` is where they stand, with a
    point.
    """
    given = {field for field, each in value.items() if each is not None}
    for field in sorted(given - set(fields)):
        raise invalid(f"{above}{field[:100]}", f"is not known; there are {', '.join(sorted(fields))}")


def metadata(value: Any) -> dict[str, str]:
    """Raises Refused."""
    words = f"a text of up to {LONGEST_VALUE} characters"
    return _pairs("metadata", value, lambda each: isinstance(each, str) and is_value(each), words)


def attributes(value: Any, param: str = "attributes") -> dict[str, str | float | bool]:
    """Raises Refused, which names `param`."""
    words = f"a text of up to {LONGEST_VALUE} characters, a number or a truth value"
    return _pairs(param, value, is_value, words)


def _pairs(param: str, value: Any, takes: Callable[[Any], bool], words: str) -> dict[str, Any]:
    """At most so many, under names that are not too long."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(param, f"must be an object; each value is {words}")
    if len(value) > MOST:
        raise invalid(param, f"has {len(value)} entries; at most {MOST} are kept")
    for key, each in value.items():
        if len(key) > LONGEST_KEY:
            raise invalid(
                param, f"has a name of {len(key)} characters, '{key[:20]}...'; at most {LONGEST_KEY} are kept"
            )
        if not takes(each):
            raise invalid(param, f"must have {words} under '{key}'")
    return value
