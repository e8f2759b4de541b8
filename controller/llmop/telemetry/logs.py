"""One line of JSON per event on standard error; for people at a terminal, readable lines."""

import contextlib
import io
import logging
import sys
from typing import TextIO, cast

import structlog


class _Lossy(io.TextIOBase):
    """A stream whose full disk or closed pipe costs lines, never the process that wrote them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed, or text that UTF-8 cannot say
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure() -> None:
    """To be called once, by a process's entry point."""
    is_terminal = sys.stderr.isatty()
    stream = cast("TextIO", _Lossy(sys.stderr))
    renderer: structlog.typing.Processor = (
        # Plain tracebacks: the pretty ones show local variables, and those may hold secrets.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if is_terminal
        else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not is_terminal:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=renderer))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    # A line per scheduled job, and one per plugin of Alembic at every start, say nothing.
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
