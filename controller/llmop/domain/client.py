"""Who calls the gateway: keys by their hashes, and what each of them may do."""

import dataclasses
import enum
import hashlib

KEY_PREFIX = "llmop-"


def digest(secret: bytes) -> bytes:
    """A key is 256 random bits, so a fast hash gives nothing away to whoever reads it."""
    return hashlib.sha256(secret).digest()


class Priority(enum.StrEnum):
    """In which band a request waits; the first goes first."""

    SYSTEM = "System"
    INTERACTIVE = "Interactive"
    DEFAULT = "Default"
    BULK = "Bulk"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """0 = no limit."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    parallel_requests: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientKey:
    """`name` is namespace/name; `digest` the SHA-256 of the secret, 64 hex digits; `models` empty = all; `shadow` = its limits are counted
    and refuse nothing; `operations` = it may see what operators look at. Times are epoch seconds.
    """

    name: str
    digest: str
    models: tuple[str, ...] = ()
    priority: Priority = Priority.DEFAULT
    limits: Limits = Limits()
    shadow: bool = False
    operations: bool = False
    expires_at: float | None = None
