"""What the store can be asked for. Implemented on SQL, and in memory for the simulation (`testing.memory_store`).

All writes of one call are one transaction that bumps the installation's revision counter by one; everything written gets
that revision as its resource version. A write that changes nothing bumps nothing.
"""

import dataclasses
import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from llmop.domain import replica, resources


class ChangeType(enum.StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One entry of the change log: the object as it is after the change (as it was last, for DELETED)."""

    revision: int
    type: ChangeType
    resource: resources.Resource


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Secrets:
    """What only the agent and the gateways may know of a replica; never part of an object."""

    api_key: str
    agent_token: str


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
    """Fails with AlreadyExists. `ledger` comes with replicas only."""

    resource: resources.Resource
    ledger: Ledger | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """Writes spec, labels, annotations, finalizers, owned fields and deletion time. Raises the generation when the spec differs or
    `deleted_at` is set for the first time.

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

    Removing what is gone already is no error and changes nothing.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    tombstoned_at: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordEvent:
    """Something happened to `regarding`. Equal (uid, type, reason, message) are one Event whose count rises."""

    namespace: str
    regarding: resources.Owner
    type: str  # Normal | Warning
    reason: str
    message: str
    at: float


Write = Create | Update | WriteStatus | RecordSubmission | Remove | RecordEvent


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """`revision` is that of the transaction (of the newest one when nothing changed); `applied[i]` says whether write i took effect.

    Only the two guards (WriteStatus, RecordSubmission) can be not applied without failing the transaction.
    """

    revision: int
    applied: tuple[bool, ...]


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

        `durable`: on return the transaction survives a power failure (submit intents need that).
        """
        ...

    async def take_over(self, holder: str) -> int:
        """Makes `holder` the reconciling controller and returns the new epoch; every older one is deposed."""
        ...

    async def revision(self) -> int:
        """The newest revision."""
        ...

    async def changes(self, after: int, limit: int = 1000) -> tuple[Change, ...]:
        """Changes with revision > `after`, in order. Raises Expired when some of them are gone."""
        ...

    def watch(self, after: int) -> AsyncIterator[Change]:
        """Every change after `after`, without a gap, for ever. Raises Expired for a reader that is too slow or too old."""
        ...

    async def compact(self, *, changes_before: int, tombstones_before: float, events_before: float) -> None:
        """Drops old history: changes with revision < `changes_before`, tombstones and events older than the times."""
        ...

    async def close(self) -> None: ...
