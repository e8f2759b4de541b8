"""Refusals, in the form that each dialect's clients understand."""

import dataclasses
import enum
import math
from collections.abc import Callable

import orjson

from llmop.domain.client import ClientKey, Limits


class Dialect(enum.StrEnum):
    OPENAI = "openai"
    TGI = "tgi"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """`code` is a word for programs, `message` a sentence for people. `retry_after` is in seconds; `dropped` becomes
    the header `x-llmop-dropped-reason`.
    """

    status: int
    code: str
    message: str
    retry_after: int | None = None
    dropped: str = ""


_OPENAI_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_TGI_VALIDATION = frozenset((400, 413, 415, 422))


def payload(refusal: Refusal, dialect: Dialect) -> bytes:
    """The JSON of a refusal.

    OpenAI: `{"error": {"message", "type", "param", "code"}}`. TGI: `{"error", "error_type"}` (`ErrorResponse` in
    router/src/lib.rs); wrong input is `validation` there, which its client raises as ValidationError.
    """
    if dialect is Dialect.TGI:
        error_type = "validation" if refusal.status in _TGI_VALIDATION else refusal.code
        return orjson.dumps({"error": refusal.message, "error_type": error_type})
    kind = _OPENAI_TYPES.get(
        refusal.status, "invalid_request_error" if refusal.status < 500 else "server_error"
    )
    return orjson.dumps(
        {"error": {"message": refusal.message, "type": kind, "param": None, "code": refusal.code}}
    )


def event(refusal: Refusal, dialect: Dialect) -> bytes:
    """The same as one server-sent event, for streams whose status has gone out already."""
    return b"data: " + payload(refusal, dialect) + b"\n\n"


def bad_request(message: str, code: str = "invalid_request") -> Refusal:
    return Refusal(status=400, code=code, message=message)


UNAUTHENTICATED = Refusal(
    status=401,
    code="invalid_api_key",
    message="a valid API key is required: send it as 'Authorization: Bearer <key>' or 'x-api-key: <key>'",
)

NOT_FOR_OTHERS = Refusal(
    status=403,
    code="not_for_others",
    message="x-llmop-for is for the rows of batches alone: send the request without it, under the key that it is for",
)
# `llmop workloads` reads the code.
OWNER_GONE = Refusal(
    status=403, code="owner_gone", message="the key that this is asked for was deleted or has expired"
)

INTERNAL = Refusal(
    status=500,
    code="internal",
    message="the gateway failed with this request: its log says why, under x-request-id",
)


def body_too_large(limit: int) -> Refusal:
    return Refusal(
        status=413,
        code="body_too_large",
        message=f"the request body is larger than the {limit} bytes that this gateway takes",
    )


def head_too_large(limit: int) -> Refusal:
    return Refusal(
        status=431, code="head_too_large", message=f"the request's head is larger than {limit} bytes"
    )


def unknown_model(name: str) -> Refusal:
    return Refusal(
        status=404,
        code="model_not_found",
        message=f"the model '{name[:200]}' does not exist, or this key may not use it",
    )


_LIMITS: dict[str, tuple[str, Callable[[Limits], int]]] = {
    "requests": ("requests per minute", lambda of: of.requests_per_minute),
    "tokens": ("tokens per minute", lambda of: of.tokens_per_minute),
    "parallel": ("requests at a time", lambda of: of.parallel_requests),
}


def over_limit(key: ClientKey, limit: str, wait: float) -> Refusal:
    words, read = _LIMITS[limit]
    return Refusal(
        status=429,
        code="rate_limit_exceeded",
        message=f"the key {key.name} may use {read(key.limits)} {words}: try again in {max(1, math.ceil(wait))} s",
        retry_after=max(1, math.ceil(wait)),
        dropped=f"limit_{limit}",
    )


NO_TABLE = Refusal(
    status=503,
    code="no_table",
    message="this gateway does not know yet which models there are: it waits for the controller's first table",
    retry_after=1,
    dropped="no_table",
)


def no_endpoint(model: str, when: str, why: str, dropped: str, retry_after: int) -> Refusal:
    """`when` says when one is expected and `why` why the request does not wait, both in a few words."""
    return Refusal(
        status=503,
        code="no_endpoint",
        message=f"no replica of the model '{model}' is ready at the moment, {when}; {why}",
        retry_after=retry_after,
        dropped=dropped,
    )


def saturated(model: str, why: str, dropped: str, retry_after: int) -> Refusal:
    return Refusal(
        status=429,
        code="saturated",
        message=f"all replicas of the model '{model}' are busy; {why}",
        retry_after=retry_after,
        dropped=dropped,
    )


def workloads_away(model: str) -> Refusal:
    return Refusal(
        status=503,
        code="workloads_away",
        message=f"the model '{model}' is not served at the moment: llmop workloads does not answer",
        retry_after=5,
        dropped="workloads_away",
    )


def upstream_failed(model: str, problem: str) -> Refusal:
    return Refusal(
        status=502,
        code="upstream_failed",
        message=f"the replica of the model '{model}' failed before it answered: {problem}",
        retry_after=1,
        dropped="upstream_failed",
    )


def stream_broken(problem: str) -> Refusal:
    return Refusal(
        status=502, code="stream_broken", message=f"the answer ends here, it is incomplete: {problem}"
    )
