"""The first event of a stream, found in whatever pieces it arrives, and whether it says "overloaded". Pure."""

import re

import orjson

FIRST_EVENT_LIMIT = 64 * 1024

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_TERMINATOR = 4  # bytes of the longest end of a block


class FirstBlock:
    """Gathers a stream's beginning until its first block (event or comment) is complete."""

    __slots__ = ("_buffer", "_start", "block")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = -1
        self.block: bytes | None = None

    def so_far(self) -> bytes:
        """The block, or what there is of it."""
        return bytes(self._buffer) if self.block is None else self.block

    def everything(self) -> bytes:
        """What was fed."""
        return bytes(self._buffer)

    def feed(self, piece: bytes) -> bool:
        """True once nothing more has to be waited for: the block is complete, or longer than anything sane."""
        seen = len(self._buffer)
        self._buffer += piece
        if self._start < 0:
            stripped = len(self._buffer.lstrip(b"\r\n"))
            if not stripped:
                return len(self._buffer) > FIRST_EVENT_LIMIT
            self._start = len(self._buffer) - stripped
        end = _END.search(self._buffer, max(self._start, seen - _TERMINATOR))
        if end is not None:
            self.block = bytes(self._buffer[self._start : end.start()])
            return True
        return len(self._buffer) > FIRST_EVENT_LIMIT


def says_overloaded(block: bytes) -> bool:
    """Whether a first event is an engine's way to say that it is full.

    TGI answers 200 to every stream and says it in the event: `{"error": ..., "error_type": "overloaded"}` on its own routes,
    `{"error": {"message": "Model is overloaded", "http_status_code": 422}}` on the OpenAI ones (router/src/server.rs).
    """
    if b'"error"' not in block:
        return False
    data = b"\n".join(line[5:].removeprefix(b" ") for line in block.splitlines() if line.startswith(b"data:"))
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(value, dict):
        return False
    if value.get("error_type") == "overloaded":
        return True
    error = value.get("error")
    if not isinstance(error, dict):
        return False
    message = error.get("message")
    if isinstance(message, str) and "overloaded" in message:
        return True
    return error.get("code") in (429, 503) or error.get("http_status_code") in (429, 503)
