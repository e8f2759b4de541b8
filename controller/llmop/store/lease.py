"""The right to use a database that several machines could open: theirs who renew a lease beside it.

File locks would do it, but some network file systems keep them to one machine (Lustre's `localflock`, nfs(5) `local_lock`). The lease is
a `files.lock`: on one machine it ends with its process, between machines with silence for `SILENT_S` on the waiter's clock.
"""

import asyncio
import logging
import threading
import time
from pathlib import Path

from llmop.domain import errors
from llmop.files import lock

SILENT_S = 2 * lock.VANISHED_S  # a cache may hide a sign of life for the half of it
TRUSTED_S = lock.VANISHED_S  # who could not renew for so long must ask before it writes
LOOK_S = 1.0

_log = logging.getLogger(__name__)


class Lease:
    """Held from `take` to `release`. A thread renews it; everything but `take` and `release` may be called in any thread."""

    def __init__(self, path: Path, held: lock.Lock) -> None:
        self._path = path
        self._held = held
        self._over = threading.Event()
        self._renewed_at = _now()
        self._thread = threading.Thread(target=self._renew, name="store-lease", daemon=True)
        self._thread.start()

    @classmethod
    async def take(cls, database_path: Path) -> "Lease":
        """Waits `SILENT_S` at most for a holder on another machine to show that it lives. Raises NeedsUser when it does; OSError."""
        path = path_of(database_path)
        held = lock.Lock(path, await asyncio.to_thread(lock.myself))
        first: lock.Seen | None = None
        since = _now()
        while not await asyncio.to_thread(held.take):
            seen = await asyncio.to_thread(held.look)
            if seen is None:
                continue
            # Another one that waited too may have been quicker: it gets the whole time to show that it lives.
            unchanged_s = _now() - since if seen == first else 0.0
            if await asyncio.to_thread(held.is_gone, seen, unchanged_s, SILENT_S):
                await asyncio.to_thread(held.bury, seen)
                first = None
                continue
            if first is None:
                first, since = seen, _now()
            if seen != first or held.is_here(seen):
                raise _in_use(database_path, seen)
            if _now() - since < LOOK_S:
                _log.warning(
                    "the store %s was held by %s: waiting %d s for a sign of life",
                    path,
                    _words(seen),
                    SILENT_S,
                )
            await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(held.sweep)
        return cls(path, held)

    def check(self) -> None:
        """Before every transaction. Raises Deposed when somebody else has it, Unavailable when that cannot be seen."""
        if _now() - self._renewed_at < TRUSTED_S:
            return
        try:
            self._touch()
        except OSError as error:
            raise errors.Unavailable(f"the lease {self._path} cannot be renewed: {error.strerror}") from error

    def release(self) -> None:
        """May be called twice."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join(lock.HEARTBEAT_S)
        try:
            self._held.release()
        except OSError as error:
            _log.warning("the lease %s stays: %s", self._path, error.strerror)

    def _renew(self) -> None:
        while not self._over.wait(lock.HEARTBEAT_S):
            try:
                self._touch()
            except (OSError, errors.Deposed):
                continue  # `check` says so when it lasts; a hasty follower puts back what it has moved away

    def _touch(self) -> None:
        if not self._held.touch():
            self._renewed_at = -TRUSTED_S
            raise errors.Deposed(0, f"the lease {self._path} was taken by another controller")
        self._renewed_at = _now()


def path_of(database_path: Path) -> Path:
    """Where the lease of a database lies while somebody has it, or has died with it."""
    return database_path.with_name(database_path.name + ".lease")


def _now() -> float:
    """Seconds that pass also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _words(seen: lock.Seen) -> str:
    return f"pid {seen.owner.pid} on {seen.owner.host}" if seen.owner is not None else "somebody unknown"


def _in_use(database_path: Path, seen: lock.Seen) -> errors.NeedsUser:
    return errors.NeedsUser(
        "StoreInUse",
        f"the store {database_path} is in use by another controller ({_words(seen)}): stop that one, or use Postgres"
        " to run several",
    )
