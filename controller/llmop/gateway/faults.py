"""Exceptions that nobody foresaw: counted, and told in the log a few times a minute."""

import contextlib
import functools
import logging
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from llmop.gateway.metrics import Counts

LOG = logging.getLogger(__name__)

MOST = 10  # told of
PERIOD = 60.0  # in so many seconds


class Faulty(Protocol):
    def fault(self) -> None:
        """Something that nobody foresaw was raised in the course of this; called where that is caught."""
        ...


_S = TypeVar("_S", bound=Faulty)
_P = ParamSpec("_P")


def guarded(method: Callable[Concatenate[_S, _P], None]) -> Callable[Concatenate[_S, _P], None]:
    """For what is called from outside, by the event loop or on behalf of somebody else. What is called with every request or event has its
    guard written out: another call in between costs more than the guard.
    """

    @functools.wraps(method)
    def call(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:  # noqa: BLE001  # it is logged there
            self.fault()

    return call


class Faults:
    """Of one process. A fault may come with every request: what it writes must not fill a disk."""

    def __init__(self, now: Callable[[], float], counts: Counts) -> None:
        """`now` is a monotonic clock, in seconds."""
        self._now = now
        self._counts = counts
        self._since = -PERIOD
        self._told = 0

    def note(self, doing: str, request_id: bytes = b"", error: BaseException | None = None) -> None:
        """`doing` says in what it came. Without `error` it is the exception that is being handled."""
        self._counts.faults += 1
        now = self._now()
        if now - self._since >= PERIOD:
            self._since, self._told = now, 0
        self._told += 1
        if self._told <= MOST:
            LOG.error(
                "a fault of the gateway in %s (request %s)",
                doing,
                request_id.decode("latin-1") or "none",
                exc_info=error or sys.exc_info()[0] is not None,
            )
        elif self._told == MOST + 1:
            LOG.error("more faults: they are counted, and not told for the rest of a minute")

    @contextlib.contextmanager
    def guard(self, doing: str, request_id: bytes = b"") -> Iterator[None]:
        """Whatever is raised ends here."""
        try:
            yield
        except Exception:  # noqa: BLE001  # it is logged there
            self.note(doing, request_id)

    def of_loop(self, loop: AbstractEventLoop, context: dict[str, Any]) -> None:
        """As the loop's handler: what came out of a callback that has no guard of its own."""
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
        else:
            self.note(context.get("message") or "a callback", error=error)
