"""One line of a batch's input file, or of a bulk request. Pure."""

import codecs
from typing import Any, NamedTuple

import orjson

from llmop.workloads.batch import ENDPOINTS, Problem

LINE_LIMIT = 4 * 1024 * 1024  # bytes: that many times the requests under way have to fit into memory
LONGEST_ID = 512  # bytes of UTF-8


class Row(NamedTuple):
    """`body` is what the model is asked, as JSON."""

    custom_id: str
    url: str
    model: str
    body: dict[str, Any]


def parse(line: bytes, number: int, endpoint: str | None) -> Row | tuple[Problem, ...]:
    """A row, or everything that is wrong with it. `endpoint` is the one that all rows of a batch must name; None: any, and none named is
    that of chats.
    """
    if len(line) > LINE_LIMIT:
        return (too_long(number),)
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return (Problem(code="invalid_json_line", line=number, message=_unreadable(line, error)),)
    if not isinstance(value, dict):
        return (Problem(code="invalid_json_line", line=number, message="the line must hold a JSON object"),)
    problems = [*_custom_id(value, number), *_target(value, number, endpoint), *_body(value, number)]
    if problems:
        return tuple(problems)
    body = value["body"]
    return Row(value["custom_id"], value.get("url") or endpoint or ENDPOINTS[0], body["model"], body)


def _unreadable(line: bytes, error: orjson.JSONDecodeError) -> str:
    if line.startswith(codecs.BOM_UTF8):
        return "the line begins with a byte order mark: save the file as UTF-8 without one"
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the file is UTF-16: save it as UTF-8"
    try:
        line.decode()
    except UnicodeDecodeError as fault:
        byte = line[fault.start]
        return f"the line is not UTF-8: byte {fault.start + 1} of it is {byte:#04x}; save the file as UTF-8"
    return f"the line is not valid JSON: {error.msg} at column {error.colno}"


def too_long(number: int) -> Problem:
    return Problem(
        code="line_too_long",
        line=number,
        message=f"the line is longer than {LINE_LIMIT} bytes: put less into one request",
    )


def _custom_id(value: dict[str, Any], number: int) -> list[Problem]:
    custom_id = value.get("custom_id")
    if isinstance(custom_id, str) and custom_id and len(custom_id.encode("utf-8", "replace")) <= LONGEST_ID:
        return []
    what = "is missing" if custom_id is None else f"must be a text of 1 to {LONGEST_ID} bytes"
    return [
        Problem(
            code="missing_required_parameter" if custom_id is None else "invalid_custom_id",
            line=number,
            param="custom_id",
            message=f"the field 'custom_id' {what}",
        )
    ]


def _target(value: dict[str, Any], number: int, endpoint: str | None) -> list[Problem]:
    problems = []
    method, url = value.get("method"), value.get("url")
    if endpoint is None:
        method = method or "POST"
        url = url or ENDPOINTS[0]
    if method != "POST":
        problems.append(
            Problem(
                code="invalid_method", line=number, param="method", message="the field 'method' must be POST"
            )
        )
    if endpoint is not None and url != endpoint:
        problems.append(
            Problem(
                code="mismatched_url",
                line=number,
                param="url",
                message=f"the field 'url' must be {endpoint}, the endpoint of the batch",
            )
        )
    elif url not in ENDPOINTS:
        problems.append(
            Problem(
                code="invalid_url",
                line=number,
                param="url",
                message=f"the field 'url' must be one of {', '.join(ENDPOINTS)}",
            )
        )
    return problems


def _body(value: dict[str, Any], number: int) -> list[Problem]:
    body = value.get("body")
    if not isinstance(body, dict):
        return [
            Problem(
                code="missing_required_parameter",
                line=number,
                param="body",
                message="the field 'body' must hold the request, a JSON object",
            )
        ]
    problems = []
    if not can_be_written(body):
        problems.append(
            Problem(
                code="invalid_body",
                line=number,
                param="body",
                message="the field 'body' is nested too deeply: at most 250 levels are passed on",
            )
        )
    if not isinstance(body.get("model"), str) or not body["model"]:
        problems.append(
            Problem(
                code="missing_required_parameter",
                line=number,
                param="body.model",
                message="the field 'body.model' must name a model",
            )
        )
    if body.get("stream"):
        problems.append(
            Problem(
                code="unsupported_parameter",
                line=number,
                param="body.stream",
                message="the field 'body.stream' must be false or left out: a row has one answer",
            )
        )
    return problems


def can_be_written(body: dict[str, Any]) -> bool:
    """orjson reads 1024 levels, and writes 254: such a row would stop all others, again and again."""
    try:
        orjson.dumps(body)
    except orjson.JSONEncodeError:
        return False
    return True
