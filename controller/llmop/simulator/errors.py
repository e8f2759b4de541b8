"""The ways a request can fail, as Text-Generation-Inference reports them (router/src/infer/mod.rs, server.rs)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorKind:
    """One row of the table of errors: HTTP status, the `error_type` word, and the label of the failure counter."""

    status: int
    error_type: str
    metric: str


VALIDATION = ErrorKind(status=422, error_type="validation", metric="validation")
SUFFIX = ErrorKind(status=422, error_type="suffix not supported", metric="validation")
BATCH_SIZE = ErrorKind(status=422, error_type="batch size exceeded", metric="validation")
GENERATION = ErrorKind(status=424, error_type="generation", metric="generation")
TEMPLATE = ErrorKind(status=422, error_type="template_error", metric="template")
TOOL = ErrorKind(status=422, error_type="tool_error", metric="validation")
INCOMPLETE = ErrorKind(status=500, error_type="incomplete_generation", metric="incomplete")
INCOMPLETE_STREAM = ErrorKind(status=500, error_type="incomplete_generation_stream", metric="incomplete")
# Of vLLM only: TGI closes its port instead.
SHUTDOWN = ErrorKind(status=500, error_type="shutdown", metric="dropped")
OVERLOADED = ErrorKind(status=429, error_type="overloaded", metric="overloaded")


class InferError(Exception):
    """A request the engine refused or failed. `message` is what the client reads as `error`."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    def body(self) -> dict[str, str]:
        """The JSON body (or stream event) of the native dialect: `{"error", "error_type"}`."""
        return {"error": self.message, "error_type": self.kind.error_type}


class BadBody(Exception):
    """A body that does not have the right shape. Answered as plain text, as axum's JSON extractor does."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def invalid(message: str) -> InferError:
    """The error for a well-formed request whose values are not allowed."""
    return InferError(VALIDATION, f"Input validation error: {message}")


def overloaded() -> InferError:
    """The error when `max_concurrent_requests` are queued or running."""
    return InferError(OVERLOADED, "Model is overloaded")
