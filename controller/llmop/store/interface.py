"""What the store can be asked for. Implemented on SQL, and in memory for the simulation (`testing.memory_store`).

All writes of one call are one transaction that bumps the installation's revision counter by one; everything written gets
that revision as its resource version. A write that changes nothing bumps nothing.
"""

import dataclasses
import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from llmop.domain import replica, resources
from llmop.domain.usage import UsageBy, UsageRow


class ChangeType(enum.StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One entry of the change log: the object as it is after the transaction (as it was last, for DELETED).

    `complete` is true for the last change of its revision. Only after that one may a reader go on from `revision`; one that
    was cut off before goes on from `revision` - 1 and sees the first ones again.
    """

    revision: int
    type: ChangeType
    resource: resources.Resource
    complete: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Secrets:
    """What only the agent and the gateways may know of a replica; never part of an object."""

    api_key: str = dataclasses.field(repr=False)
    agent_token: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The submission record of a replica with its secrets. Lives from intent until its tombstone is dropped."""

    replica_uid: str
    namespace: str
    replica_name: str
    cluster: str
    submission: replica.Submission
    secrets: Secrets
    tombstoned_at: float | None = None  # the replica object is gone; kept so that late claims can be refused


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Create:
    """The caller gives uid and creation time. The generation starts at 1. `ledger` comes with replicas only.

    Fails with AlreadyExists when the name, the uid or the ledger's job name is taken; a job name stays taken as long as its
    ledger lives.
    """

    resource: resources.Resource
    ledger: Ledger | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """Writes spec, labels, annotations, finalizers, owned fields and deletion time; everything else stays as it is stored. Raises the
    generation when the spec differs or `deleted_at` is set for the first time. A deletion time once set stays.

    Fails with Conflict unless the stored resource version is `expected_version`, with NotFound when it is gone or its uid differs.
    """

    resource: resources.Resource
    expected_version: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WriteStatus:
    """The first guard: status is written only when the object is unchanged since it was read."""

    kind: str
    namespace: str
    name: str
    uid: str
    expected_version: int
    status: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordSubmission:
    """The second guard: a fact about the world, written whatever the resource version is.

    Applies when the ledger row of `replica_uid` is in one of `states` (and, if `job_id_is` is given, holds no job id or
    that one). The submission part is replaced as a whole.
    """

    replica_uid: str
    states: frozenset[replica.SubmissionState]
    submission: replica.Submission
    job_id_is: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Remove:
    """Takes the object away (DELETED in the change log). The ledger of a replica stays as a tombstone from `tombstoned_at` on.

    Removing what is gone already (or has another uid by now) is no error and changes nothing. An object with a ledger needs
    `tombstoned_at` (ValueError).
    """

    kind: str
    namespace: str
    name: str
    uid: str
    tombstoned_at: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordEvent:
    """Something happened to `regarding`. Equal (uid, type, reason, message) are one Event whose count rises.

    The Event's spec holds regarding {kind, name, uid}, type, reason, message, count, firstSeenAt and lastSeenAt (RFC 3339). Once ten
    different messages of one (uid, type, reason) are kept, further ones are combined into one Event. Its generation stays 1.
    """

    namespace: str
    regarding: resources.Owner
    type: str  # Normal | Warning
    reason: str
    message: str
    at: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NoOthers:
    """Writes nothing; holds the call to what was read before it.

    Fails with Conflict when there is an object of `kind` that is not among `uids`: it was made since they were listed.
    """

    kind: str
    uids: frozenset[str]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Unchanged:
    """Writes nothing; holds the call to what was read before it: of each kind how many objects there were, and the newest resource
    version among them (0 = none).

    Fails with Conflict when one was made, changed or removed since.
    """

    kinds: Mapping[str, tuple[int, int]]


Write = Create | Update | WriteStatus | RecordSubmission | Remove | RecordEvent | NoOthers | Unchanged


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """`revision` is that of the transaction (of the newest one when nothing changed); `applied[i]` says whether write i took effect.

    `changes` is what the change log got. Only the two guards (WriteStatus, RecordSubmission) can be not applied without failing the
    transaction.
    """

    revision: int
    applied: tuple[bool, ...]
    changes: tuple[Change, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    items: tuple[resources.Resource, ...]  # ordered by namespace, name
    revision: int


class Store(Protocol):
    """All times are arguments. Unreachable databases raise errors.Unavailable."""

    async def installation(self) -> str:
        """The six characters that are part of every job name; random, made once with the database."""
        ...

    async def get(self, kind: str, namespace: str, name: str) -> resources.Resource:
        """Raises NotFound."""
        ...

    async def list(self, kind: str, namespace: str | None = None) -> Listing:
        """One consistent snapshot; `namespace` None = all."""
        ...

    async def ledgers(self, replica_uids: Sequence[str] | None = None) -> tuple[Ledger, ...]:
        """Submission records, tombstones included; None = all."""
        ...

    async def commit(
        self, writes: Sequence[Write], *, epoch: int | None = None, durable: bool = False
    ) -> Committed:
        """One transaction. With `epoch`, raises Deposed unless it is the current one.

        `durable`: on return the transaction survives a power failure (submit intents need that). Expected versions mean the state
        before the call (0 for what the call itself creates), so one call can hold an Update and a WriteStatus of one object. Each
        object touched is in the change log once, as it is at the end. After Unavailable nobody knows whether the transaction took
        place; it did wholly or not at all.
        """
        ...

    async def take_over(self, holder: str, now: float) -> int:
        """Makes `holder` the reconciling controller and returns the new epoch; every older one is deposed. `now` is in epoch seconds: the new
        epoch is that second, or one more than the last where that is later. So it is above those that a restored database has forgotten.
        """
        ...

    async def epoch(self) -> int:
        """The current epoch: that of the reconciling controller."""
        ...

    async def revision(self) -> int:
        """The newest revision."""
        ...

    async def changes(self, after: int, limit: int = 1000) -> tuple[Change, ...]:
        """Changes with revision > `after`, in order. Raises Expired when some of them are gone, or when this store has never
        reached `after` (it is another one, or was restored from a backup).

        About `limit` of them at most: a revision is never cut apart. Fewer are all that there are.
        """
        ...

    def watch(self, after: int) -> AsyncIterator[Change]:
        """Every change after `after`, without a gap, for ever.

        Raises Expired for a reader that is too slow or too old, or has seen what the store has lost since (a failover to a standby
        that was behind). Whoever lists again can go on.
        """
        ...

    async def add_usage(self, spool: str, number: int, rows: Sequence[UsageRow]) -> bool:
        """Counts a batch, durably and once: False, and nothing is counted, unless its number is higher than that of every batch of this
        spool before.
        """
        ...

    async def usage(
        self, by: Sequence[UsageBy], *, since: float, until: float, key: str = "", model: str = ""
    ) -> tuple[UsageRow, ...]:
        """Sums over the hours that began at `since` or later and before `until`, ordered by hour, key and model; what is summed over is
        left out of the rows. `key` and `model` choose, "" = all.
        """
        ...

    async def drop_usage(self, before: float) -> None:
        """Forgets the hours that began before."""
        ...

    async def compact(self, *, changes_before: int, tombstones_before: float, events_before: float) -> None:
        """Drops old history: changes with revision < `changes_before`, tombstones and events older than the times.

        Events that go are in the change log as DELETED, like every object that goes.
        """
        ...

    async def close(self) -> None: ...
