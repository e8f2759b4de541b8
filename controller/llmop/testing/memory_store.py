"""The store in memory: the double that simulations run on. Deterministic: no clock, no thread, no wait inside a call."""

import asyncio
import bisect
import copy
import enum
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from llmop.domain import errors, resources
from llmop.domain.usage import Amount, UsageBy, UsageRow
from llmop.store import interface, transaction

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Moment(enum.StrEnum):
    """When a hook is called."""

    BEFORE_COMMIT = "before commit"  # nothing has happened yet
    AFTER_COMMIT = "after commit"  # everything is stored, the caller does not know it


Hook = Callable[[Moment, Sequence[interface.Write]], None]


class MemoryStore:
    """Implements `interface.Store`. Outlives the controllers of a simulation: it is what survives their crashes.

    `hook` is called around every commit; what it raises, the caller of `commit` gets. So a crash before a commit leaves
    nothing, and a crash after it leaves everything.
    """

    def __init__(self, installation: str = "memory", hook: Hook | None = None) -> None:
        self.hook = hook
        self._installation = installation
        self._revision = 0
        self._epoch = 0
        self._compacted = 0  # changes up to and with this revision are gone
        self._log: list[interface.Change] = []
        self._tables = _Tables()
        self._news = asyncio.Event()
        self._usage: dict[tuple[int, str, str], Amount] = {}
        self._spools: dict[str, int] = {}

    async def installation(self) -> str:
        return self._installation

    async def get(self, kind: str, namespace: str, name: str) -> resources.Resource:
        found = self._tables.objects.get((kind, namespace, name))
        if found is None:
            raise errors.NotFound(kind, name)
        return found

    async def list(self, kind: str, namespace: str | None = None) -> interface.Listing:
        of_kind = self._tables.kinds.get(kind, {}).values()
        items = [item for item in of_kind if namespace in (None, item.namespace)]
        items.sort(key=lambda item: item.key)
        return interface.Listing(items=tuple(items), revision=self._revision)

    async def ledgers(self, replica_uids: Sequence[str] | None = None) -> tuple[interface.Ledger, ...]:
        ledgers = self._tables.ledgers
        wanted = ledgers.keys() if replica_uids is None else ledgers.keys() & set(replica_uids)
        return tuple(ledgers[uid] for uid in sorted(wanted))

    async def commit(
        self, writes: Sequence[interface.Write], *, epoch: int | None = None, durable: bool = False
    ) -> interface.Committed:
        if self.hook is not None:
            self.hook(Moment.BEFORE_COMMIT, writes)
        if epoch is not None and epoch != self._epoch:
            raise errors.Deposed(epoch)
        committed = self._apply(writes)
        if self.hook is not None:
            self.hook(Moment.AFTER_COMMIT, writes)
        return committed

    async def take_over(self, holder: str, now: float) -> int:
        self._epoch = max(self._epoch + 1, int(now))
        return self._epoch

    async def epoch(self) -> int:
        return self._epoch

    async def revision(self) -> int:
        return self._revision

    async def changes(self, after: int, limit: int = 1000) -> tuple[interface.Change, ...]:
        if not self._compacted <= after <= self._revision:
            raise errors.Expired(after, self._compacted + 1)
        start = bisect.bisect_right(self._log, after, key=lambda change: change.revision)
        end = min(start + limit, len(self._log))
        while start < end < len(self._log) and not self._log[end - 1].complete:
            end += 1
        return tuple(self._log[start:end])

    async def watch(self, after: int) -> AsyncIterator[interface.Change]:
        while True:
            news = self._news
            page = await self.changes(after)
            for change in page:
                yield change
            if page:
                after = page[-1].revision
            else:
                await news.wait()

    async def compact(self, *, changes_before: int, tombstones_before: float, events_before: float) -> None:
        old = [self._tables.objects[key] for key, (_, at) in self._tables.seen.items() if at < events_before]
        self._apply(
            [
                interface.Remove(kind=event.kind, namespace=event.namespace, name=event.name, uid=event.uid)
                for event in old
            ]
        )
        for uid, ledger in list(self._tables.ledgers.items()):
            if ledger.tombstoned_at is not None and ledger.tombstoned_at < tombstones_before:
                del self._tables.ledgers[uid]
                self._tables.job_names.pop(ledger.submission.job_name, None)
        self._compacted = max(self._compacted, min(changes_before - 1, self._revision))
        del self._log[: bisect.bisect_right(self._log, self._compacted, key=lambda change: change.revision)]

    def saved(self) -> Callable[[], None]:
        """Puts back what is here now, when called: a failover to a standby that was behind."""
        tables, log = copy.deepcopy(self._tables), list(self._log)
        numbers = (self._revision, self._epoch, self._compacted)

        def put_back() -> None:
            self._tables, self._log = copy.deepcopy(tables), list(log)
            self._revision, self._epoch, self._compacted = numbers
            self._wake()

        return put_back

    async def add_usage(self, spool: str, number: int, rows: Sequence[UsageRow]) -> bool:
        if self._spools.get(spool, -1) >= number:
            return False
        self._spools[spool] = number
        for row in rows:
            place = (row.hour, row.key, row.model)
            self._usage[place] = self._usage.get(place, Amount()) + row.amount
        return True

    async def usage(
        self, by: Sequence[UsageBy], *, since: float, until: float, key: str = "", model: str = ""
    ) -> tuple[UsageRow, ...]:
        sums: dict[tuple[int, str, str], Amount] = {}
        for (hour, of_key, of_model), amount in self._usage.items():
            if since <= hour < until and key in ("", of_key) and model in ("", of_model):
                place = (
                    hour if UsageBy.HOUR in by else 0,
                    of_key if UsageBy.KEY in by else "",
                    of_model if UsageBy.MODEL in by else "",
                )
                sums[place] = sums.get(place, Amount()) + amount
        return tuple(
            UsageRow(hour=hour, key=of_key, model=of_model, amount=amount)
            for (hour, of_key, of_model), amount in sorted(sums.items(), key=lambda each: each[0])
        )

    async def drop_usage(self, before: float) -> None:
        self._usage = {place: amount for place, amount in self._usage.items() if place[0] >= before}

    async def close(self) -> None:
        """Nothing is held open; the content stays."""

    def _apply(self, writes: Sequence[interface.Write]) -> interface.Committed:
        rows = _Rows(self._tables, self._log)
        work = transaction.Transaction(rows, self._revision + 1)
        applied = tuple(work.apply(write) for write in writes)
        changes: tuple[interface.Change, ...] = ()
        if work.changed:
            changes = work.finish()
            rows.keep()
            self._revision += 1
            self._wake()
        return interface.Committed(revision=self._revision, applied=applied, changes=changes)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class _Tables:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], resources.Resource] = {}
        self.kinds: dict[str, dict[tuple[str, str, str], resources.Resource]] = {}  # the same, by kind
        self.uids: dict[str, tuple[str, str, str]] = {}
        self.ledgers: dict[str, interface.Ledger] = {}
        self.job_names: dict[str, str] = {}  # the replica uid of each
        self.seen: dict[tuple[str, str, str], tuple[str, float]] = {}  # of Events: series, last time
        self.series: dict[str, int] = {}  # how many Events each has


class _Overlay(Generic[_Key, _Value]):
    """A dictionary whose changes can still be thrown away."""

    def __init__(self, base: dict[_Key, _Value]) -> None:
        self._base = base
        self.changed: dict[_Key, _Value | None] = {}

    def get(self, key: _Key) -> _Value | None:
        return self.changed[key] if key in self.changed else self._base.get(key)

    def put(self, key: _Key, value: _Value | None) -> None:
        """None takes the entry away."""
        self.changed[key] = value

    def keep(self) -> None:
        for key, value in self.changed.items():
            if value is None:
                self._base.pop(key, None)
            else:
                self._base[key] = value


class _Rows:
    """Implements `transaction.Rows`."""

    def __init__(self, tables: _Tables, log: list[interface.Change]) -> None:
        self._objects = _Overlay(tables.objects)
        self._uids = _Overlay(tables.uids)
        self._ledgers = _Overlay(tables.ledgers)
        self._seen = _Overlay(tables.seen)
        self._series = _Overlay(tables.series)
        self._job_names = _Overlay(tables.job_names)
        self._kinds = tables.kinds
        self._log = log
        self._changes: Sequence[interface.Change] = ()

    def find(self, kind: str, namespace: str, name: str) -> resources.Resource | None:
        return self._objects.get((kind, namespace, name))

    def uids(self, kind: str) -> frozenset[str]:
        return frozenset(each.uid for each in self._of_kind(kind).values() if each is not None)

    def _of_kind(self, kind: str) -> dict[tuple[str, str, str], resources.Resource | None]:
        changed = {key: each for key, each in self._objects.changed.items() if key[0] == kind}
        return self._kinds.get(kind, {}) | changed

    def newest(self, kinds: Collection[str]) -> Mapping[str, tuple[int, int]]:
        versions = {
            kind: [each.resource_version for each in self._of_kind(kind).values() if each is not None]
            for kind in kinds
        }
        return {kind: (len(each), max(each, default=0)) for kind, each in versions.items()}

    def is_taken(self, resource: resources.Resource) -> bool:
        return self.find(*resource.key) is not None or self._uids.get(resource.uid) is not None

    def insert(self, resource: resources.Resource) -> None:
        self._objects.put(resource.key, resource)
        self._uids.put(resource.uid, resource.key)

    def replace(self, resource: resources.Resource) -> None:
        self._objects.put(resource.key, resource)

    def delete(self, resource: resources.Resource) -> None:
        self._objects.put(resource.key, None)
        self._uids.put(resource.uid, None)
        seen = self._seen.get(resource.key)
        if seen is not None:
            self._seen.put(resource.key, None)
            self._series.put(seen[0], (self.events_in(seen[0]) - 1) or None)

    def ledger(self, replica_uid: str) -> interface.Ledger | None:
        return self._ledgers.get(replica_uid)

    def job_name_taken(self, job_name: str) -> bool:
        return self._job_names.get(job_name) is not None

    def insert_ledger(self, ledger: interface.Ledger) -> None:
        self._ledgers.put(ledger.replica_uid, ledger)
        self._job_names.put(ledger.submission.job_name, ledger.replica_uid)

    def replace_ledger(self, ledger: interface.Ledger) -> None:
        before = self._ledgers.get(ledger.replica_uid)
        if before is not None and before.submission.job_name != ledger.submission.job_name:
            self._job_names.put(before.submission.job_name, None)
        self.insert_ledger(ledger)

    def events_in(self, series: str) -> int:
        return self._series.get(series) or 0

    def event_seen(self, event: resources.Resource, series: str, at: float) -> None:
        before = self._seen.get(event.key)
        if before is None:
            self._series.put(series, self.events_in(series) + 1)
        else:
            at = max(at, before[1])
        self._seen.put(event.key, (series, at))

    def log(self, changes: Sequence[interface.Change]) -> None:
        self._changes = changes

    def keep(self) -> None:
        for key, resource in self._objects.changed.items():
            of_kind = self._kinds.setdefault(key[0], {})
            if resource is None:
                of_kind.pop(key, None)
            else:
                of_kind[key] = resource
        for table in (
            self._objects,
            self._uids,
            self._ledgers,
            self._job_names,
            self._seen,
            self._series,
        ):
            table.keep()
        self._log.extend(self._changes)
