"""Every error of ours reaches a caller as a status that a program can act on."""

import inspect

import grpc
import pytest
from google.rpc import error_details_pb2

from llmop.domain import errors
from llmop.manifest import load
from llmop.rpc import errors as rpc_errors
from llmop.rpc import status


def leaves(module: object) -> set[type[errors.LlmopError]]:
    found = {
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, errors.LlmopError)
    }
    return {
        each for each in found if not any(other is not each and issubclass(other, each) for other in found)
    }


def unpack(proto: object, kind: type) -> object | None:
    for detail in proto.details:  # type: ignore[attr-defined]
        if detail.Is(kind.DESCRIPTOR):  # type: ignore[attr-defined]
            message = kind()
            detail.Unpack(message)
            return message
    return None


def test_every_leaf_of_the_error_tree_is_mapped() -> None:
    assert leaves(errors) | leaves(rpc_errors) == set(status.TABLE)


EXAMPLES = [
    (errors.NeedsUser("InUse", "used"), "FAILED_PRECONDITION", "IN_USE"),
    (errors.WaitUntil(1010, "QueueFull", "later"), "UNAVAILABLE", "QUEUE_FULL"),
    (errors.NotFound("Replica", "x"), "NOT_FOUND", "NOT_FOUND"),
    (errors.AlreadyExists("Replica", "x"), "ALREADY_EXISTS", "ALREADY_EXISTS"),
    (errors.Conflict("changed", ("spec.replicas",)), "ABORTED", "CONFLICT"),
    (errors.Invalid("Replica", "x", ()), "INVALID_ARGUMENT", "INVALID"),
    (errors.Expired(1, 5), "OUT_OF_RANGE", "EXPIRED"),
    (errors.Deposed(1), "UNAVAILABLE", "DEPOSED"),
    (errors.Unavailable("database"), "UNAVAILABLE", "SERVICE_UNAVAILABLE"),
    (rpc_errors.BadRequest("no"), "INVALID_ARGUMENT", "BAD_REQUEST"),
]


@pytest.mark.parametrize(("error", "code", "reason"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_code_and_reason_say_what_happened(error: errors.LlmopError, code: str, reason: str) -> None:
    proto = status.to_proto(error, now=1000)
    info = unpack(proto, error_details_pb2.ErrorInfo)
    assert (grpc.StatusCode[code].value[0], reason, "llmop") == (proto.code, info.reason, info.domain)  # type: ignore[attr-defined]


def test_the_examples_cover_the_table() -> None:
    assert set(status.TABLE) == {type(error) for error, _, _ in EXAMPLES}


def test_a_wait_says_how_long() -> None:
    retry = unpack(
        status.to_proto(errors.WaitUntil(1010.5, "QueueFull", "later"), now=1000), error_details_pb2.RetryInfo
    )
    assert 10.5 == retry.retry_delay.ToMilliseconds() / 1000  # type: ignore[attr-defined]


def test_violations_keep_path_reason_and_message() -> None:
    violation = errors.Violation(path="spec.replicas", reason="InvalidValue", message="-1 is too small")
    request = unpack(
        status.to_proto(errors.Invalid("ModelDeployment", "x", (violation,)), now=0),
        error_details_pb2.BadRequest,
    )
    [found] = request.field_violations  # type: ignore[attr-defined]
    assert ("spec.replicas", "INVALID_VALUE", "-1 is too small") == (
        found.field,
        found.reason,
        found.description,
    )


def test_details_fit_into_trailers_whatever_is_wrong() -> None:
    violations = tuple(
        errors.Violation(path=f"spec.env.{'x' * 400}{index}", reason="InvalidValue", message="y" * 2000)
        for index in range(500)
    )
    proto = status.to_proto(errors.Invalid("ModelDeployment", "n" * 500, violations), now=0)
    request = unpack(proto, error_details_pb2.BadRequest)
    assert proto.ByteSize() < 6000
    kept = len(request.field_violations) - 1  # type: ignore[attr-defined]
    assert request.field_violations[-1].description == f"{500 - kept} more; fix these first and apply again"  # type: ignore[attr-defined]


def test_a_long_conflict_fits_too() -> None:
    paths = tuple(f"spec.env.{'ю' * 200}{index}" for index in range(500))
    assert status.to_proto(errors.Conflict("ж" * 5000, paths), now=0).ByteSize() < 6000


def test_a_foreign_error_shows_nothing_of_its_text() -> None:
    proto = status.to_proto(RuntimeError("password=hunter2"), now=0)
    assert (grpc.StatusCode.INTERNAL.value[0], status.INTERNAL_TEXT) == (proto.code, proto.message)
    assert b"hunter2" not in proto.SerializeToString()


def test_an_error_of_a_kind_that_is_not_in_the_table_is_internal() -> None:
    assert grpc.StatusCode.INTERNAL.value[0] == status.to_proto(load.ManifestError(()), now=0).code
