"""What only a caller of the control API can do wrong."""

from llmop.domain import errors


class BadRequest(errors.LlmopError):
    """The request itself makes no sense, whatever is stored. `reason` is a CamelCase word."""

    def __init__(self, message: str, reason: str = "BadRequest") -> None:
        super().__init__(message)
        self.reason = reason
