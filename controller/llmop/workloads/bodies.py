"""What several routes read of their requests."""

from collections.abc import Collection
from typing import Any

import orjson
from starlette.requests import Request

from llmop.workloads.lines import can_be_written
from llmop.workloads.refusals import Refused, invalid

TOO_DEEP = "the body is nested too deeply: at most 250 levels are passed on"
_MOST, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512  # of metadata and attributes, as OpenAI has it


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


def check_fields(value: dict[str, Any], fields: Collection[str]) -> None:
    """Raises Refused for one that is not among `fields`; one that is null is one that was left out."""
    given = {field for field, each in value.items() if each is not None}
    for field in sorted(given - set(fields)):
        raise invalid(field[:100], f"is not known; there are {', '.join(sorted(fields))}")


def metadata(value: Any) -> dict[str, str]:
    """Raises Refused."""
    return _pairs("metadata", value, (str,), "texts")


def attributes(value: Any) -> dict[str, str | float | bool]:
    """Raises Refused."""
    return _pairs("attributes", value, (str, int, float, bool), "texts, numbers and truth values")


def _pairs(param: str, value: Any, kinds: tuple[type, ...], words: str) -> dict[str, Any]:
    if value is None:
        return {}
    if (
        not isinstance(value, dict)
        or len(value) > _MOST
        or any(
            not isinstance(each, kinds)
            or len(key) > _LONGEST_KEY
            or (isinstance(each, str) and len(each) > _LONGEST_VALUE)
            for key, each in value.items()
        )
    ):
        raise invalid(
            param,
            f"must hold at most {_MOST} {words} of up to {_LONGEST_VALUE} characters under names of up to {_LONGEST_KEY}",
        )
    return value
