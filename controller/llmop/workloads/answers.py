"""Lines of output and error files, and of the answer to a bulk request: OpenAI's form of a batch's results. Pure."""

from typing import Any, NamedTuple

import orjson

_LONGEST_LINE = 300  # characters of an error in plain text


class Answer(NamedTuple):
    """What the gateway said. `retry_after` is in seconds."""

    status: int
    body: bytes
    request_id: str = ""
    retry_after: float | None = None


def answered(name: str, custom_id: str, answer: Answer) -> bytes:
    """`name` is the row's own, beside the client's `custom_id`. Without a newline."""
    response = {"status_code": answer.status, "request_id": answer.request_id, "body": _content(answer.body)}
    return _line(name, custom_id, response, None)


def unanswered(name: str, custom_id: str | None, code: str, message: str) -> bytes:
    return _line(name, custom_id, None, {"code": code, "message": message})


def _line(
    name: str, custom_id: str | None, response: dict[str, Any] | None, error: dict[str, Any] | None
) -> bytes:
    line = {"id": name, "custom_id": custom_id, "response": response, "error": error}
    try:
        return orjson.dumps(line)
    except orjson.JSONEncodeError:  # an answer can be read that is nested too deeply to be written
        message = "the answer is nested too deeply to be kept"
        return orjson.dumps(
            {**line, "response": None, "error": {"code": "answer_not_kept", "message": message}}
        )


def _content(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")


def says(body: bytes) -> str:
    """The sentence in an error, "" where there is none: of OpenAI's form, of TGI's (`{"error": "..."}`, on its OpenAI routes too), or a line
    of plain text, with which TGI's router refuses a body that it cannot read.
    """
    content = _content(body)
    if isinstance(content, str):
        line = " ".join(content.split())
        is_text = line.isprintable() and "\ufffd" not in line and not line.startswith("<")
        return line[:_LONGEST_LINE] if is_text else ""
    error = content.get("error") if isinstance(content, dict) else None
    found = error.get("message") if isinstance(error, dict) else error
    return found if isinstance(found, str) else ""


def code_of(body: bytes) -> str:
    """The word for programs in one of OpenAI's form."""
    content = _content(body)
    error = content.get("error") if isinstance(content, dict) else None
    found = error.get("code") if isinstance(error, dict) else None
    return found if isinstance(found, str) else ""
