"""Errors -> google.rpc status: the one place that decides code, reason and details.

Every status carries an ErrorInfo (domain `llmop`, reason in UPPER_SNAKE_CASE, the CamelCase reason for people as
metadata `reason`). Details travel in HTTP/2 trailers, which peers bound at 8 KiB, so they are cut (gRPC guide "Error handling").
"""

import re
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from llmop.domain import errors
from llmop.rpc import errors as rpc_errors

DOMAIN = "llmop"
INTERNAL_TEXT = "internal error; the controller's log has the details"
_MESSAGE_LIMIT = 800  # bytes; outside of ASCII each takes three in the trailer grpc-message
_DETAILS_LIMIT = 3500  # bytes, a third more in base64

_Details = list[Any]


def _code(code: grpc.StatusCode) -> int:
    return int(code.value[0])


def _cut(text: str, limit: int = _MESSAGE_LIMIT) -> str:
    """`text` in at most `limit` bytes of UTF-8."""
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[: limit - 3].decode("utf-8", "ignore") + "…"


def _info(reason: str, **metadata: str) -> Any:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", reason).upper()[:63]
    values = {"reason": reason} | {key: _cut(value, 200) for key, value in metadata.items()}
    return error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN, metadata=values)


def _retry(seconds: float) -> Any:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(max(0, round(seconds * 1000)))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _resource(kind: str, name: str) -> Any:
    return error_details_pb2.ResourceInfo(resource_type=kind, resource_name=_cut(name, 200))


def _needs_user(error: errors.NeedsUser, now: float) -> tuple[grpc.StatusCode, _Details]:
    return grpc.StatusCode.FAILED_PRECONDITION, [_info(error.reason)]


def _wait_until(error: errors.WaitUntil, now: float) -> tuple[grpc.StatusCode, _Details]:
    return grpc.StatusCode.UNAVAILABLE, [_info(error.reason), _retry(error.when - now)]


def _not_found(error: errors.NotFound, now: float) -> tuple[grpc.StatusCode, _Details]:
    return grpc.StatusCode.NOT_FOUND, [_info("NotFound"), _resource(error.kind, error.name)]


def _already_exists(error: errors.AlreadyExists, now: float) -> tuple[grpc.StatusCode, _Details]:
    return grpc.StatusCode.ALREADY_EXISTS, [_info("AlreadyExists"), _resource(error.kind, error.name)]


def _conflict(error: errors.Conflict, now: float) -> tuple[grpc.StatusCode, _Details]:
    details: _Details = [_info("Conflict")]
    if error.paths:
        failure = error_details_pb2.PreconditionFailure()
        for path in error.paths:
            failure.violations.add(type="FieldManagerConflict", subject=_cut(path, 200))
            if failure.ByteSize() > _DETAILS_LIMIT:
                break
        details.append(failure)
    return grpc.StatusCode.ABORTED, details


def _invalid(error: errors.Invalid, now: float) -> tuple[grpc.StatusCode, _Details]:
    request = error_details_pb2.BadRequest()
    size = 0
    for index, violation in enumerate(error.violations):
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.path, 300),
            reason=re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", violation.reason).upper(),
            description=_cut(violation.message, 500),
        )
        size += entry.ByteSize()
        if size > _DETAILS_LIMIT:
            left = len(error.violations) - index
            request.field_violations.add(
                reason="TOO_MANY", description=f"{left} more; fix these first and apply again"
            )
            break
        request.field_violations.append(entry)
    return grpc.StatusCode.INVALID_ARGUMENT, [_info("Invalid"), request, _resource(error.kind, error.name)]


def _expired(error: errors.Expired, now: float) -> tuple[grpc.StatusCode, _Details]:
    info = _info("Expired", requested=str(error.requested), oldest=str(error.oldest))
    return grpc.StatusCode.OUT_OF_RANGE, [info]


def _deposed(error: errors.Deposed, now: float) -> tuple[grpc.StatusCode, _Details]:
    return grpc.StatusCode.UNAVAILABLE, [_info("Deposed"), _retry(1)]


def _unavailable(error: errors.Unavailable, now: float) -> tuple[grpc.StatusCode, _Details]:
    return grpc.StatusCode.UNAVAILABLE, [_info("ServiceUnavailable"), _retry(1)]


def _bad_request(error: rpc_errors.BadRequest, now: float) -> tuple[grpc.StatusCode, _Details]:
    return grpc.StatusCode.INVALID_ARGUMENT, [_info(error.reason)]


TABLE: dict[type[errors.LlmopError], Callable[[Any, float], tuple[grpc.StatusCode, _Details]]] = {
    errors.NeedsUser: _needs_user,
    errors.WaitUntil: _wait_until,
    errors.NotFound: _not_found,
    errors.AlreadyExists: _already_exists,
    errors.Conflict: _conflict,
    errors.Invalid: _invalid,
    errors.Expired: _expired,
    errors.Deposed: _deposed,
    errors.Unavailable: _unavailable,
    rpc_errors.BadRequest: _bad_request,
}


def _message(error: errors.LlmopError) -> str:
    if isinstance(
        error, errors.Invalid
    ):  # the violations are in the details, where they are not cut in the middle
        return _cut(f'{error.kind} "{error.name}" is invalid')
    return _cut(str(error))


def to_proto(error: BaseException, now: float) -> status_pb2.Status:
    """The status of any error; one that is not ours is INTERNAL and shows nothing of its text."""
    for each in type(error).__mro__:
        if each in TABLE:
            code, details = TABLE[each](error, now)
            message = _message(error) if isinstance(error, errors.LlmopError) else INTERNAL_TEXT
            break
    else:
        code, details, message = grpc.StatusCode.INTERNAL, [_info("InternalError")], INTERNAL_TEXT
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=_code(code), message=message, details=packed)


def to_grpc(error: BaseException, now: float) -> grpc.Status:
    """What `context.abort_with_status` takes."""
    return rpc_status.to_status(to_proto(error, now))
