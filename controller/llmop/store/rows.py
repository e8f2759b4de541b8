"""The rows of one open transaction in SQL; see `transaction.Rows`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from llmop.domain import resources
from llmop.store import codec, interface, tables

_objects = tables.objects.c

FIND = tables.objects.select().where(
    _objects.kind == sa.bindparam("kind"),
    _objects.namespace == sa.bindparam("namespace"),
    _objects.name == sa.bindparam("name"),
)
LIST = (
    tables.objects.select()
    .where(_objects.kind == sa.bindparam("kind"))
    .order_by(_objects.namespace, _objects.name)
)
LIST_NAMESPACE = LIST.where(_objects.namespace == sa.bindparam("namespace"))

_UIDS = sa.select(_objects.uid).where(_objects.kind == sa.bindparam("kind"))
_TAKEN = sa.select(_objects.uid).where(
    (_objects.uid == sa.bindparam("uid"))
    | (
        (_objects.kind == sa.bindparam("kind"))
        & (_objects.namespace == sa.bindparam("namespace"))
        & (_objects.name == sa.bindparam("name"))
    )
)
_NEWEST = (
    sa.select(_objects.kind, sa.func.count(), sa.func.max(_objects.resource_version))
    .where(_objects.kind.in_(sa.bindparam("kinds", expanding=True)))
    .group_by(_objects.kind)
)
_REPLACE = tables.objects.update().where(_objects.uid == sa.bindparam("key"))
_DELETE = tables.objects.delete().where(_objects.uid == sa.bindparam("key"))
_LEDGER = tables.ledgers.select().where(tables.ledgers.c.replica_uid == sa.bindparam("uid"))
_JOB_NAME = sa.select(tables.ledgers.c.replica_uid).where(
    tables.ledgers.c.job_name == sa.bindparam("job_name")
)
_REPLACE_LEDGER = tables.ledgers.update().where(tables.ledgers.c.replica_uid == sa.bindparam("key"))
_COUNT_EVENTS = (
    sa.select(sa.func.count())
    .select_from(tables.events)
    .where(tables.events.c.series == sa.bindparam("of_series"))
)
_LAST_SEEN = sa.select(tables.events.c.last_seen_at).where(tables.events.c.uid == sa.bindparam("of_uid"))
_SEEN_AGAIN = tables.events.update().where(tables.events.c.uid == sa.bindparam("key"))


class SqlRows:
    """Every statement runs in the transaction of `connection`, which holds the counter row: nobody else writes."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def find(self, kind: str, namespace: str, name: str) -> resources.Resource | None:
        row = self._connection.execute(FIND, {"kind": kind, "namespace": namespace, "name": name}).first()
        return None if row is None else resource(row)

    def uids(self, kind: str) -> frozenset[str]:
        return frozenset(self._connection.execute(_UIDS, {"kind": kind}).scalars())

    def newest(self, kinds: Collection[str]) -> Mapping[str, tuple[int, int]]:
        found = self._connection.execute(_NEWEST, {"kinds": list(kinds)})
        return {kind: (count, version) for kind, count, version in found}

    def is_taken(self, resource: resources.Resource) -> bool:
        kind, namespace, name = resource.key
        key = {"kind": kind, "namespace": namespace, "name": name, "uid": resource.uid}
        return self._connection.execute(_TAKEN, key).first() is not None

    def insert(self, resource: resources.Resource) -> None:
        self._connection.execute(tables.objects.insert(), _values(resource))

    def replace(self, resource: resources.Resource) -> None:
        self._connection.execute(_REPLACE, {"key": resource.uid, **_values(resource)})

    def delete(self, resource: resources.Resource) -> None:
        self._connection.execute(_DELETE, {"key": resource.uid})

    def ledger(self, replica_uid: str) -> interface.Ledger | None:
        row = self._connection.execute(_LEDGER, {"uid": replica_uid}).first()
        return None if row is None else ledger(row)

    def job_name_taken(self, job_name: str) -> bool:
        return self._connection.execute(_JOB_NAME, {"job_name": job_name}).first() is not None

    def insert_ledger(self, ledger: interface.Ledger) -> None:
        self._connection.execute(tables.ledgers.insert(), _ledger_values(ledger))

    def replace_ledger(self, ledger: interface.Ledger) -> None:
        self._connection.execute(_REPLACE_LEDGER, {"key": ledger.replica_uid, **_ledger_values(ledger)})

    def events_in(self, series: str) -> int:
        return self._connection.execute(_COUNT_EVENTS, {"of_series": series}).scalar_one()

    def event_seen(self, event: resources.Resource, series: str, at: float) -> None:
        before = self._connection.execute(_LAST_SEEN, {"of_uid": event.uid}).scalar()
        if before is None:
            row = {"uid": event.uid, "series": series, "last_seen_at": at}
            self._connection.execute(tables.events.insert(), row)
        elif at > before:
            self._connection.execute(_SEEN_AGAIN, {"key": event.uid, "last_seen_at": at})

    def log(self, changes: Sequence[interface.Change]) -> None:
        self._connection.execute(
            tables.changes.insert(),
            [
                {
                    "revision": change.revision,
                    "position": position,
                    "type": change.type.value,
                    "object": codec.resource_text(change.resource),
                }
                for position, change in enumerate(changes)
            ],
        )


def resource(row: sa.Row[Any]) -> resources.Resource:
    owned_fields = codec.decode(row.owned_fields)
    return resources.Resource(
        kind=row.kind,
        name=row.name,
        namespace=row.namespace,
        uid=row.uid,
        generation=row.generation,
        resource_version=row.resource_version,
        labels=codec.decode(row.labels),
        annotations=codec.decode(row.annotations),
        finalizers=tuple(codec.decode(row.finalizers)),
        owner=codec.owner_from_fields(codec.decode(row.owner)),
        created_at=row.created_at,
        deleted_at=row.deleted_at,
        owned_fields={manager: tuple(paths) for manager, paths in owned_fields.items()},
        spec=codec.mapping(row.spec, {resources.STORED_TEXT: row.spec}),
        status=codec.mapping(row.status, {}),
    )


def ledger(row: sa.Row[Any]) -> interface.Ledger:
    return interface.Ledger(
        replica_uid=row.replica_uid,
        namespace=row.namespace,
        replica_name=row.replica_name,
        cluster=row.cluster,
        submission=codec.submission_from_text(row.submission),
        secrets=interface.Secrets(api_key=row.api_key, agent_token=row.agent_token),
        tombstoned_at=row.tombstoned_at,
    )


def _values(resource: resources.Resource) -> dict[str, Any]:
    return {
        "uid": resource.uid,
        "kind": resource.kind,
        "namespace": resource.namespace,
        "name": resource.name,
        "generation": resource.generation,
        "resource_version": resource.resource_version,
        "created_at": resource.created_at,
        "deleted_at": resource.deleted_at,
        "labels": codec.encode(resource.labels).decode(),
        "annotations": codec.encode(resource.annotations).decode(),
        "finalizers": codec.encode(resource.finalizers).decode(),
        "owner": codec.encode(codec.owner_fields(resource.owner)).decode(),
        "owned_fields": codec.encode(resource.owned_fields).decode(),
        "spec": codec.encode(resource.spec).decode(),
        "status": codec.encode(resource.status).decode(),
    }


def _ledger_values(ledger: interface.Ledger) -> dict[str, Any]:
    return {
        "replica_uid": ledger.replica_uid,
        "namespace": ledger.namespace,
        "replica_name": ledger.replica_name,
        "cluster": ledger.cluster,
        "job_name": ledger.submission.job_name,
        "submission": codec.submission_text(ledger.submission),
        "api_key": ledger.secrets.api_key,
        "agent_token": ledger.secrets.agent_token,
        "tombstoned_at": ledger.tombstoned_at,
    }
