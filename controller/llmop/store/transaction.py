"""What each write means, whatever the rows are kept in. Both the SQL store and its double run this code."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from llmop.domain import errors, resources
from llmop.store import codec, events, interface


class Rows(Protocol):
    """The rows of one open transaction, as it has changed them so far."""

    def find(self, kind: str, namespace: str, name: str) -> resources.Resource | None: ...

    def uids(self, kind: str) -> frozenset[str]:
        """Of all objects of `kind`."""
        ...

    def newest(self, kinds: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """By kind: how many objects there are, and the newest resource version among them. Kinds without objects may be left out."""
        ...

    def is_taken(self, resource: resources.Resource) -> bool:
        """Whether an object has its kind, namespace and name, or its uid."""
        ...

    def insert(self, resource: resources.Resource) -> None: ...

    def replace(self, resource: resources.Resource) -> None:
        """Writes `resource` over the row of the same uid."""
        ...

    def delete(self, resource: resources.Resource) -> None: ...

    def ledger(self, replica_uid: str) -> interface.Ledger | None: ...

    def job_name_taken(self, job_name: str) -> bool: ...

    def insert_ledger(self, ledger: interface.Ledger) -> None: ...

    def replace_ledger(self, ledger: interface.Ledger) -> None: ...

    def events_in(self, series: str) -> int:
        """How many Events of `series` there are."""
        ...

    def event_seen(self, event: resources.Resource, series: str, at: float) -> None:
        """Keeps when `event` happened last; deleting the object drops this too."""
        ...

    def log(self, changes: Sequence[interface.Change]) -> None: ...


class Transaction:
    """The writes of one commit, applied one after the other.

    An object appears in the change log once per transaction, as it is at the end, in the order of first touch. Expected
    versions mean the state before the transaction, so one call can hold an Update and a WriteStatus of one object.
    """

    def __init__(self, rows: Rows, revision: int) -> None:
        self._rows = rows
        self._revision = revision
        self._before: dict[str, resources.Resource | None] = {}  # by uid
        self._last: dict[str, resources.Resource] = {}
        self._gone: set[str] = set()
        self.changed = False

    def apply(self, write: interface.Write) -> bool:
        """Whether `write` took effect. Raises AlreadyExists, Conflict, NotFound, Invalid."""
        match write:
            case interface.Create():
                return self._create(write)
            case interface.Update():
                return self._update(write)
            case interface.WriteStatus():
                return self._write_status(write)
            case interface.RecordSubmission():
                return self._record_submission(write)
            case interface.Remove():
                return self._remove(write)
            case interface.RecordEvent():
                return self._record_event(write)
            case interface.NoOthers():
                return self._no_others(write)
            case interface.Unchanged():
                return self._unchanged(write)

    def finish(self) -> tuple[interface.Change, ...]:
        """Writes the change log and returns what it got."""
        entries: list[tuple[interface.ChangeType, resources.Resource]] = []
        for uid, before in self._before.items():
            if uid not in self._gone:
                known = interface.ChangeType.ADDED if before is None else interface.ChangeType.MODIFIED
                entries.append((known, self._last[uid]))
            elif before is not None:
                entries.append((interface.ChangeType.DELETED, self._last[uid]))
        changes = tuple(
            interface.Change(
                revision=self._revision, type=kind, resource=resource, complete=position == len(entries)
            )
            for position, (kind, resource) in enumerate(entries, start=1)
        )
        if changes:
            self._rows.log(changes)
        return changes

    def _create(self, write: interface.Create) -> bool:
        wanted = write.resource
        if not wanted.uid:
            raise ValueError(f"{wanted.kind} {wanted.name!r} has no uid: give it one before it is created")
        if self._rows.is_taken(wanted):
            raise errors.AlreadyExists(wanted.kind, wanted.name)
        created = dataclasses.replace(codec.settle(wanted), generation=1, resource_version=self._revision)
        self._rows.insert(created)
        self._touch(None, created)
        if write.ledger is not None:
            job_name = write.ledger.submission.job_name
            if self._rows.ledger(write.ledger.replica_uid) is not None:
                raise errors.AlreadyExists("Ledger", write.ledger.replica_uid)
            if self._rows.job_name_taken(job_name):
                raise errors.AlreadyExists("Job name", job_name)
            self._rows.insert_ledger(write.ledger)
        return True

    def _update(self, write: interface.Update) -> bool:
        wanted = write.resource
        stored = self._rows.find(*wanted.key)
        if stored is None or stored.uid != wanted.uid:
            raise errors.NotFound(wanted.kind, wanted.name)
        version = self._version_before(stored)
        if version != write.expected_version:
            raise errors.Conflict(
                f'{wanted.kind} "{wanted.name}" has changed since it was read (resource version '
                f"{version}, expected {write.expected_version}): read it again and repeat the change"
            )
        deleted_at = stored.deleted_at if stored.deleted_at is not None else wanted.deleted_at
        after = codec.settle(
            dataclasses.replace(
                stored,
                labels=wanted.labels,
                annotations=wanted.annotations,
                finalizers=wanted.finalizers,
                owned_fields=wanted.owned_fields,
                spec=wanted.spec,
                deleted_at=deleted_at,
            )
        )
        if codec.resource_text(after) == codec.resource_text(stored):
            return True
        new_intent = deleted_at != stored.deleted_at or codec.encode(after.spec) != codec.encode(stored.spec)
        after = dataclasses.replace(
            after, generation=stored.generation + new_intent, resource_version=self._revision
        )
        self._rows.replace(after)
        self._touch(stored, after)
        return True

    def _write_status(self, write: interface.WriteStatus) -> bool:
        stored = self._rows.find(write.kind, write.namespace, write.name)
        if stored is None or stored.uid != write.uid:
            return False
        if self._version_before(stored) != write.expected_version:
            return False
        text = codec.part(stored, "status", write.status)
        if text == codec.encode(stored.status):
            return True
        self._replace(stored, status=codec.decode(text))
        return True

    def _record_submission(self, write: interface.RecordSubmission) -> bool:
        ledger = self._rows.ledger(write.replica_uid)
        if ledger is None or ledger.submission.state not in write.states:
            return False
        if write.job_id_is is not None and ledger.submission.job_id not in (None, write.job_id_is):
            return False
        if ledger.submission == write.submission:
            return True
        job_name = write.submission.job_name
        if job_name != ledger.submission.job_name and self._rows.job_name_taken(job_name):
            raise errors.AlreadyExists("Job name", job_name)
        self._rows.replace_ledger(dataclasses.replace(ledger, submission=write.submission))
        self.changed = True
        return True

    def _remove(self, write: interface.Remove) -> bool:
        stored = self._rows.find(write.kind, write.namespace, write.name)
        if stored is None or stored.uid != write.uid:
            return True
        ledger = self._rows.ledger(write.uid)
        if ledger is not None:
            if write.tombstoned_at is None:
                raise ValueError(
                    f"{write.kind} {write.name!r} has a ledger: its removal needs a time for the tombstone"
                )
            self._rows.replace_ledger(dataclasses.replace(ledger, tombstoned_at=write.tombstoned_at))
        self._rows.delete(stored)
        self._touch(stored, stored)
        self._gone.add(stored.uid)
        return True

    def _record_event(self, write: interface.RecordEvent) -> bool:
        series = events.series(write)
        stored = self._rows.find(resources.EVENT, write.namespace, events.name(write))
        combined = stored is None and self._rows.events_in(series) >= events.DISTINCT_MESSAGES
        if combined:
            stored = self._rows.find(resources.EVENT, write.namespace, events.combined_name(write))
        if stored is None:
            event = dataclasses.replace(
                codec.settle(events.first(write, combined=combined)), resource_version=self._revision
            )
            self._rows.insert(event)
            self._touch(None, event)
        else:
            event = self._replace(stored, spec=events.again(stored.spec, write, combined=combined))
        self._rows.event_seen(event, series, write.at)
        return True

    def _no_others(self, write: interface.NoOthers) -> bool:
        others = self._rows.uids(write.kind) - write.uids
        if others:
            raise errors.Conflict(
                f"{len(others)} more of kind {write.kind} than were read: read them again and repeat the change"
            )
        return True

    def _unchanged(self, write: interface.Unchanged) -> bool:
        now = self._rows.newest(write.kinds)
        for kind, before in write.kinds.items():
            if now.get(kind, (0, 0)) != before:
                raise errors.Conflict(
                    f"objects of kind {kind} have changed since they were read: read them again and repeat the change"
                )
        return True

    def _replace(self, stored: resources.Resource, **fields: Any) -> resources.Resource:
        after = dataclasses.replace(stored, resource_version=self._revision, **fields)
        self._rows.replace(after)
        self._touch(stored, after)
        return after

    def _touch(self, before: resources.Resource | None, after: resources.Resource) -> None:
        self._before.setdefault(after.uid, before)
        self._last[after.uid] = after
        self.changed = True

    def _version_before(self, stored: resources.Resource) -> int:
        """The version that `stored` had before this transaction; 0 for what it created itself."""
        before = self._before.get(stored.uid, stored)
        return 0 if before is None else before.resource_version
