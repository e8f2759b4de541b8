"""What clients are told when something is not done, in OpenAI's form."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Refused(Exception):
    """`code` is a word for programs, the text a sentence for people; `param` is the field that is meant. `retry_after` is in seconds."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after


def no_such(kind: str, name: str) -> Refused:
    """Also for what belongs to another key."""
    return Refused(404, "not_found", f"there is no {kind} '{name[:200]}'", "id")


def invalid(param: str, message: str) -> Refused:
    return Refused(400, "invalid_value", f"the field '{param}' {message}", param)


def vectors_away(setting: str = "") -> Refused:
    """`setting` of Postgres says how long it may take, where that is over. What is said of the server stands in the log: it names machines."""
    late = f"took longer than its {setting} allows" if setting else "does not answer"
    message = f"the database of the vector stores {late}: try again later"
    return Refused(503, "vectors_away", message, retry_after=5.0)


def payload(refused: Refused) -> dict[str, Any]:
    kind = _TYPES.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
    return {"error": {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code}}


async def answer(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    response = json(payload(error), error.status)
    if error.retry_after is not None:
        response.headers["retry-after"] = str(max(1, round(error.retry_after)))
    return response


def json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
