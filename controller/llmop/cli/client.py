"""The connection to the controller: calls with deadlines, watches that survive a lost connection, errors in kubectl's words."""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.domain.errors import Violation

# Not NONE: gRPC aborts the process where it cannot go on, for example when the account may start no more threads, and with NONE
# it would do so without a word (src/core/util/log.cc). What can be handled comes as a status and is not logged as an error.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc

from llmop.api.v1 import resources_pb2, resources_pb2_grpc

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_RECONNECT_S = (0.2, 0.5, 1.0, 2.0)

_REASONS = {
    grpc.StatusCode.UNAUTHENTICATED: ("Unauthorized", ExitCode.UNAUTHENTICATED),
    grpc.StatusCode.PERMISSION_DENIED: ("Forbidden", ExitCode.FORBIDDEN),
    grpc.StatusCode.INVALID_ARGUMENT: ("BadRequest", ExitCode.BAD_REQUEST),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("Timeout", ExitCode.TIMEOUT),
    grpc.StatusCode.NOT_FOUND: ("NotFound", ExitCode.NOT_FOUND),
    grpc.StatusCode.ALREADY_EXISTS: ("AlreadyExists", ExitCode.ALREADY_EXISTS),
    grpc.StatusCode.OUT_OF_RANGE: ("Expired", ExitCode.EXPIRED),
    grpc.StatusCode.ABORTED: ("Conflict", ExitCode.CONFLICT),
    grpc.StatusCode.FAILED_PRECONDITION: ("Conflict", ExitCode.CONFLICT),
    grpc.StatusCode.UNAVAILABLE: ("ServiceUnavailable", ExitCode.UNAVAILABLE),
    grpc.StatusCode.INTERNAL: ("InternalError", ExitCode.INTERNAL),
    grpc.StatusCode.UNIMPLEMENTED: ("MethodNotAllowed", ExitCode.BAD_REQUEST),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("TooManyRequests", ExitCode.TOO_MANY_REQUESTS),
}


class ServerError(CliError):
    """What the controller answered. `violations` is filled for an invalid manifest; `fields` for a conflict of owners."""

    def __init__(
        self,
        message: str,
        code: ExitCode,
        *,
        reason: str,
        kind: str = "",
        name: str = "",
        violations: tuple[Violation, ...] = (),
        fields: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, code)
        self.reason = reason
        self.kind = kind
        self.name = name
        self.violations = violations
        self.fields = fields


class ConnectionLost(ServerError):
    """Nobody answers at the address."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One step of a watch. `row` and `columns` are those of the API.

    `type` is ADDED, MODIFIED or DELETED, or SYNCED once the first state is complete.
    """

    type: str
    row: Any = None
    columns: tuple[Any, ...] = ()


class Client:
    """Calls of one controller. `timeout_s` bounds each call that is not a stream."""

    def __init__(self, address: str, timeout_s: float) -> None:
        if not address.startswith("unix:///"):
            raise UsageError(
                f'controller address "{address}": only unix:///path is supported in this version'
            )
        self.address = address
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(
            address,
            options=(
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.enable_http_proxy", 0),
                # Not min_reconnect_backoff_ms: it also bounds how long a busy controller may take to greet a client.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2000),
            ),
        )
        stub: Any = resources_pb2_grpc.ResourceServiceStub
        self.resources: Any = stub(self._channel)

    @functools.cached_property
    def rollout(self) -> Any:
        from llmop.api.v1 import rollout_pb2_grpc

        stub: Any = rollout_pb2_grpc.RolloutServiceStub
        return stub(self._channel)

    @functools.cached_property
    def logs(self) -> Any:
        from llmop.api.v1 import logs_pb2_grpc

        stub: Any = logs_pb2_grpc.LogServiceStub
        return stub(self._channel)

    @functools.cached_property
    def admin(self) -> Any:
        from llmop.api.v1 import admin_pb2_grpc

        stub: Any = admin_pb2_grpc.AdminServiceStub
        return stub(self._channel)

    @functools.cached_property
    def artifacts(self) -> Any:
        from llmop.api.v1 import artifacts_pb2_grpc

        stub: Any = artifacts_pb2_grpc.ArtifactServiceStub
        return stub(self._channel)

    @functools.cached_property
    def usage(self) -> Any:
        from llmop.api.v1 import usage_pb2_grpc

        stub: Any = usage_pb2_grpc.UsageServiceStub
        return stub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def call(self, method: Any, request: Any, *, timeout_s: float | None = None) -> Any:
        """One answer, within `timeout_s` where a call is known to take longer than others. Raises ServerError."""
        try:
            return method(request, timeout=timeout_s or self._timeout_s)
        except grpc.RpcError as error:
            raise self._translate(error, timeout_s) from error

    def stream(self, method: Any, request: Any) -> Iterator[Any]:
        """All answers, for as long as they come. Raises ServerError."""
        call = method(request)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._translate(error) from error
        finally:
            call.cancel()

    def get(self, kind: str, namespace: str, name: str) -> Any:
        return self.call(
            self.resources.Get, resources_pb2.GetRequest(kind=kind, namespace=namespace, name=name)
        )

    def list(
        self, kind: str, namespace: str, selector: str = "", field_selector: str = ""
    ) -> tuple[list[Any], list[Any]]:
        """(rows, columns) of one consistent snapshot; `namespace` "" = all."""
        while True:
            rows: list[Any] = []
            token = ""
            try:
                while True:
                    page = self.call(
                        self.resources.List,
                        resources_pb2.ListRequest(
                            kind=kind,
                            namespace=namespace,
                            label_selector=selector,
                            field_selector=field_selector,
                            page_token=token,
                        ),
                    )
                    rows.extend(page.rows)
                    token = page.next_page_token
                    if not token:
                        return rows, list(page.columns)
            except ServerError as error:
                if error.code is not ExitCode.EXPIRED:
                    raise

    def watch(
        self,
        kind: str,
        namespace: str,
        name: str = "",
        *,
        selector: str = "",
        field_selector: str = "",
        lost: Callable[[str], None],
    ) -> Iterator[Change]:
        """The state, SYNCED, then every change, for ever: goes on after a lost connection, lists again when the history is gone.

        `lost` gets one sentence when the connection breaks; a first connection that fails is a ServerError.
        """
        position = 0
        connected = False
        attempt = 0
        known: dict[tuple[str, str], Any] = {}
        while True:
            request = resources_pb2.WatchRequest(
                kind=kind,
                namespace=namespace,
                name=name,
                resource_version=position,
                label_selector=selector,
                field_selector=field_selector,
            )
            seen: set[tuple[str, str]] | None = set() if position == 0 else None
            try:
                for answer in self.stream(self.resources.Watch, request):
                    attempt = 0
                    if answer.type == resources_pb2.WatchResponse.TYPE_BOOKMARK:
                        if seen is not None:
                            yield from _vanished(known, seen)
                            seen = None
                            if not connected:
                                connected = True
                                yield Change(type="SYNCED", columns=tuple(answer.columns))
                    else:
                        yield from _step(answer, known, seen)
                    if seen is None:
                        position = answer.resource_version
                raise ConnectionLost(
                    "the controller ended the watch", ExitCode.UNAVAILABLE, reason="ServiceUnavailable"
                )
            except ServerError as error:
                if error.code is ExitCode.EXPIRED:
                    position = 0
                elif connected and error.code in (ExitCode.NETWORK, ExitCode.UNAVAILABLE):
                    if attempt == 0:
                        lost("the connection to the controller is lost; trying again")
                    time.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
                    attempt += 1
                else:
                    raise

    def _translate(self, error: Any, timeout_s: float | None = None) -> ServerError:
        from grpc_status import rpc_status

        status = rpc_status.from_call(error)
        details = list(status.details) if status is not None else []
        if error.code() is grpc.StatusCode.UNAVAILABLE and not details:
            words = unreachable(self.address, str(error.details()))
            return ConnectionLost(words, ExitCode.NETWORK, reason="NetworkError")
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not details:
            return ServerError(
                f"error: the controller did not answer within {timeout_s or self._timeout_s:g}s; what it was asked may still happen",
                ExitCode.TIMEOUT,
                reason="Timeout",
            )
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and not details:
            return ServerError(f"error: {error.details()}", ExitCode.TOO_LARGE, reason="TooLarge")
        return _server_error(error, details)


def unreachable(address: str, words: str) -> str:
    """The sentence for a controller that could not be talked with; `words` are gRPC's, with the system's own at their end."""
    if "Permission denied" in words:
        return f"The controller's socket {address} may not be used by this account - only by the one that runs the controller."
    return f'The connection to the controller at {address} was refused - is it running? Start one with "llmop up".'


def _server_error(error: Any, details: Iterable[Any]) -> ServerError:
    from google.rpc import error_details_pb2

    reason, code = _REASONS.get(error.code(), ("Unknown", ExitCode.UNKNOWN))
    kind = name = ""
    violations: tuple[Violation, ...] = ()
    fields: tuple[str, ...] = ()
    for detail in details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.metadata.get("reason") or reason
        elif detail.Is(error_details_pb2.ResourceInfo.DESCRIPTOR):
            resource = error_details_pb2.ResourceInfo()
            detail.Unpack(resource)
            kind, name = resource.resource_type, resource.resource_name
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            request = error_details_pb2.BadRequest()
            detail.Unpack(request)
            violations = tuple(
                Violation(path=each.field, reason=each.reason, message=each.description)
                for each in request.field_violations
            )
        elif detail.Is(error_details_pb2.PreconditionFailure.DESCRIPTOR):
            failure = error_details_pb2.PreconditionFailure()
            detail.Unpack(failure)
            fields = tuple(each.subject for each in failure.violations)
    if violations:
        lines = [
            f"* {each.path}: {each.message}" if each.path else f"* {each.message}" for each in violations
        ]
        message = "\n".join([f'The {kind} "{name}" is invalid:', *lines])
    else:
        message = f"Error from server ({reason}): {error.details()}"
    return ServerError(
        message, code, reason=reason, kind=kind, name=name, violations=violations, fields=fields
    )


def _step(
    answer: Any, known: dict[tuple[str, str], Any], seen: set[tuple[str, str]] | None
) -> Iterator[Change]:
    """What `answer` means to somebody who has seen `known`; `seen` collects a first state."""
    metadata = answer.row.object.metadata
    key = (metadata.namespace, metadata.name)
    columns = tuple(answer.columns)
    if answer.type == resources_pb2.WatchResponse.TYPE_DELETED:
        # A watch that goes on is told of all objects that do not match, of those too that it never saw.
        if known.pop(key, None) is not None:
            yield Change(type="DELETED", row=answer.row, columns=columns)
        return
    if seen is not None:
        seen.add(key)
    before = known.get(key)
    known[key] = answer.row
    if before is None:
        yield Change(type="ADDED", row=answer.row, columns=columns)
    elif before.object.metadata.resource_version != metadata.resource_version:
        yield Change(type="MODIFIED", row=answer.row, columns=columns)


def _vanished(known: dict[tuple[str, str], Any], seen: set[tuple[str, str]]) -> Iterator[Change]:
    """After a second listing: what is gone was deleted in between."""
    for key in [key for key in known if key not in seen]:
        yield Change(type="DELETED", row=known.pop(key))
