"""The only place where llmop reads a clock or makes a random name. Everything else takes them as arguments."""

import time
from typing import Protocol

_ALPHABET = (
    "bcdfghjkmnpqrstvwxz2456789"  # no vowels, no look-alikes: suffixes never spell words and read well aloud
)


class Clock(Protocol):
    """Where `now` and new names come from; the simulation has its own."""

    def now(self) -> float:
        """Seconds since the epoch, UTC, in whole microseconds: what is stored as text compares equal when it comes back."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back; only differences mean something."""
        ...

    def uid(self) -> str:
        """A new UUID in its text form, 36 characters."""
        ...

    def suffix(self, length: int) -> str:
        """`length` random characters that are legal in a DNS label."""
        ...

    def secret(self) -> str:
        """256 random bits as URL-safe text."""
        ...


class SystemClock:
    """The machine's clock and its random source."""

    def now(self) -> float:
        return round(time.time(), 6)

    def monotonic(self) -> float:
        return time.monotonic()

    def uid(self) -> str:
        import uuid  # here and below: llmctl needs no names, and starts sooner without

        return str(uuid.uuid4())

    def suffix(self, length: int) -> str:
        import secrets

        return "".join(secrets.choice(_ALPHABET) for _ in range(length))

    def secret(self) -> str:
        import secrets

        return secrets.token_urlsafe(32)
