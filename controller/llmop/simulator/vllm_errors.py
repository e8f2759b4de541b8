"""How vLLM says no (vllm/entrypoints/serve/exception_handling/): `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any

from .errors import OVERLOADED, InferError


class VllmError(Exception):
    """A refused request. `param` is the field that is meant."""

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, kind: str = "BadRequestError"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
        self.kind = kind

    def body(self) -> dict[str, Any]:
        """The JSON body, or the event in a stream."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.status,
            }
        }


def bad_value(message: str, parameter: str, value: Any = None) -> VllmError:
    """A value that vLLM itself finds wrong: it adds field and value to the text."""
    shown = f"parameter={parameter}" if value is None else f"parameter={parameter}, value={value}"
    return VllmError(f"{message} ({shown})", param=parameter)


def bad_shape(*problems: dict[str, Any]) -> VllmError:
    """What pydantic finds wrong before vLLM sees it; `loc` of a problem is the field's path."""
    count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''}"
    lines = "".join(f"\n  {problem}" for problem in problems)
    return VllmError(f"{count}:{lines}", param=problems[0]["loc"], kind="Bad Request")


def wrong_content_type() -> VllmError:
    return VllmError(
        "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed",
        kind="Bad Request",
    )


def unknown_model(name: str, served: str) -> VllmError:
    return VllmError(
        f"The model `{name}` does not exist. Valid aliases: {served}.",
        param="model",
        status=404,
        kind="NotFoundError",
    )


def of_engine(error: InferError) -> VllmError:
    """What the simulated engine says, in vLLM's words."""
    if error.kind is OVERLOADED:
        return VllmError(
            "The engine is currently busy and cannot accept new requests. "
            "Please try again later or on a different instance.",
            status=503,
            kind="Service Unavailable",
        )
    return VllmError(error.message, status=500, kind="InternalServerError")
