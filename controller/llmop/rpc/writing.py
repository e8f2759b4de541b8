"""Writes to desired state, each repeated on a fresh read when somebody else was quicker."""

import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from llmop.clock import Clock
from llmop.domain import resources, rollouts
from llmop.domain.errors import AlreadyExists, Conflict, Invalid, NeedsUser, NotFound, Violation
from llmop.manifest import admit, exported, merge
from llmop.rpc import audit, deletion, moving, referring
from llmop.rpc.errors import BadRequest
from llmop.store import interface

DEFAULT_MANAGER = "llmctl"
_ATTEMPTS = 5
_Result = TypeVar("_Result")

Hint = Callable[[str, str, str], None]
Change = Callable[[resources.Resource], tuple[resources.Resource, tuple[str, ...]]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a write did. `live` is the object before it, None when it was created; `warnings` are sentences for whoever wrote."""

    resource: resources.Resource
    live: resources.Resource | None
    verdict: str
    changed_paths: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class _Raced(Conflict):
    """Another writer came in between."""


class Writer:
    """`hint(kind, namespace, name)` is called after each write that took effect, so that the reconciler looks at once."""

    def __init__(self, store: interface.Store, clock: Clock, hint: Hint) -> None:
        self._store = store
        self._clock = clock
        self._hint = hint
        self._references = referring.References(store)

    async def apply(
        self,
        manifest: str,
        *,
        namespace: str,
        manager: str,
        force: bool,
        dry_run: bool,
        create_only: bool = False,
    ) -> Outcome:
        """What only the controller sets is ignored, with a warning unless the manifest is what `get` has printed."""
        document, warnings = exported.strip(_document(manifest))

        async def attempt() -> Outcome:
            live = await self._live(_key(document, namespace))
            if create_only and live is not None:
                raise AlreadyExists(live.kind, live.name)
            applied = merge.apply(live, document, manager=manager, force=force, namespace=namespace)
            resource = applied.resource if live is not None else self._new(applied.resource)
            outcome = Outcome(
                resource=resource,
                live=live,
                verdict=applied.verdict.value,
                changed_paths=applied.changed_paths,
                warnings=warnings,
            )
            will_write = (
                not dry_run and resource != live
            )  # an unchanged one may still get a new owner of its fields
            fixed = await self._references.check(resource, will_write=will_write)
            guards = await moving.check(self._store, live, resource)
            if not will_write:
                return outcome
            write: interface.Create | interface.Update
            if live is None:
                write = interface.Create(resource=resource)
            else:
                write = interface.Update(resource=resource, expected_version=live.resource_version)
            stored = await self._commit(write, *fixed, *guards)
            audit.record(
                "apply", stored, manager=manager, result=outcome.verdict, paths=outcome.changed_paths
            )
            return dataclasses.replace(outcome, resource=stored)

        return await _repeated(attempt)

    async def scale(
        self,
        namespace: str,
        name: str,
        replicas: int,
        *,
        current_replicas: int | None,
        resource_version: int,
        dry_run: bool = False,
    ) -> Outcome:
        if replicas < 0:
            raise Invalid(
                resources.MODEL_DEPLOYMENT,
                name,
                (
                    Violation(
                        path="spec.replicas",
                        reason="OutOfRange",
                        message=f"must be 0 or more, got {replicas}",
                    ),
                ),
            )

        def scaled(live: resources.Resource) -> tuple[resources.Resource, tuple[str, ...]]:
            if live.spec.get("scaling"):
                raise NeedsUser("Scaled", _scaled(live))
            current = rollouts.wanted(live.spec, live.status)
            if current_replicas is not None and current_replicas != current:
                raise Conflict(f'ModelDeployment "{name}" has {current} replicas, not {current_replicas}')
            _require_version(live, resource_version)
            return merge.scale(live, replicas), (merge.REPLICAS,)

        return await self.change(
            namespace, name, scaled, verb="scale", manager=merge.SCALE_MANAGER, dry_run=dry_run
        )

    async def change(
        self, namespace: str, name: str, change: Change, *, verb: str, manager: str, dry_run: bool
    ) -> Outcome:
        """Makes of a deployment what `change` says: it gets the object as it is and returns it as it shall be, with the changed paths.

        Raises what `change` raises.
        """

        async def attempt() -> Outcome:
            live = await self._store.get(resources.MODEL_DEPLOYMENT, namespace, name)
            _refuse_if_deleting(live)
            resource, changed = change(live)
            if resource == live:
                return Outcome(resource=live, live=live, verdict="unchanged")
            fixed = await self._references.check(resource, will_write=not dry_run)
            if not dry_run:
                write = interface.Update(resource=resource, expected_version=live.resource_version)
                resource = await self._commit(write, *fixed)
                audit.record(verb, resource, manager=manager, result="configured", paths=changed)
            return Outcome(resource=resource, live=live, verdict="configured", changed_paths=changed)

        return await _repeated(attempt)

    async def delete(
        self, kind: str, namespace: str, name: str, *, uid: str, resource_version: int, dry_run: bool
    ) -> Outcome:
        """What holds finalizers, and a replica, is marked and goes when its jobs are gone; anything else goes at once."""

        async def attempt() -> Outcome:
            live = await self._store.get(kind, namespace, name)
            if uid and uid != live.uid:
                raise Conflict(
                    f'{kind} "{name}" has uid {live.uid}, not {uid}: it was deleted and created again'
                )
            _require_version(live, resource_version)
            await deletion.refuse_if_used(self._store, live)
            if live.deleted_at is not None:
                return Outcome(resource=live, live=live, verdict="deleting")
            waits = bool(live.finalizers) or kind == resources.REPLICA
            marked = dataclasses.replace(live, deleted_at=self._clock.now())
            if dry_run:
                return Outcome(resource=marked, live=live, verdict="deleted")
            if waits:
                write = interface.Update(resource=marked, expected_version=live.resource_version)
                marked = await self._commit(write)
            else:
                await self._store.commit(
                    [interface.Remove(kind=kind, namespace=namespace, name=name, uid=live.uid)]
                )
                self._hint(kind, namespace, name)
            audit.record("delete", marked, manager=DEFAULT_MANAGER, result="marked" if waits else "removed")
            return Outcome(resource=marked, live=live, verdict="deleted")

        return await _repeated(attempt)

    def _new(self, resource: resources.Resource) -> resources.Resource:
        """What a new object gets from the server; a deployment holds its jobs until the reconciler says they are gone."""
        finalizers = (resources.JOBS_FINALIZER,) if resource.kind == resources.MODEL_DEPLOYMENT else ()
        return dataclasses.replace(
            resource, uid=self._clock.uid(), created_at=self._clock.now(), finalizers=finalizers
        )

    async def _live(self, key: tuple[str, str, str] | None) -> resources.Resource | None:
        if key is None:
            return None
        try:
            live = await self._store.get(*key)
        except NotFound:
            return None
        _refuse_if_deleting(live)
        return live

    async def _commit(
        self,
        write: interface.Create | interface.Update,
        *guards: interface.NoOthers | interface.Unchanged,
    ) -> resources.Resource:
        """The object as stored. Raises _Raced when it was changed, made or removed since it was read, or a guard fails."""
        try:
            # What was acknowledged to a person survives a power failure.
            committed = await self._store.commit([*guards, write], durable=True)
        except (Conflict, AlreadyExists, NotFound) as error:
            self._references.forget()
            raise _Raced(str(error)) from error
        self._hint(*write.resource.key)
        written = (each.resource for each in committed.changes if each.resource.key == write.resource.key)
        return next(written, write.resource)  # nothing was written where it is stored like this already


def _document(manifest: str) -> dict[str, Any]:
    try:
        data = json.loads(manifest, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
        json.dumps(
            data, ensure_ascii=False
        ).encode()  # JSON can escape half of a character; nobody can store it
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"manifest_json: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest("manifest_json: must be an object with apiVersion, kind, metadata and spec")
    return data


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands there twice")
    return found


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _key(document: Mapping[str, Any], namespace: str) -> tuple[str, str, str] | None:
    """Which object a manifest is about; None when it does not say, which `merge` refuses with all that is wrong."""
    kind, metadata = document.get("kind"), document.get("metadata")
    info = resources.KINDS.get(kind) if isinstance(kind, str) else None
    if info is None or info.read_only or not isinstance(metadata, Mapping):
        return None
    name, written = metadata.get("name"), metadata.get("namespace")
    if not isinstance(name, str) or not isinstance(written, str | None):
        return None
    return (info.name, (written or namespace or admit.DEFAULT_NAMESPACE) if info.namespaced else "", name)


def _scaled(live: resources.Resource) -> str:
    return (
        f'ModelDeployment "{live.name}" has as many replicas as its load asks for, from {rollouts.bounds(live.spec)}'
        f": change these with llmctl autoscale md/{live.name}, or fix the number with --off"
    )


def _refuse_if_deleting(live: resources.Resource) -> None:
    if live.deleted_at is not None:
        raise Conflict(
            f'{live.kind} "{live.name}" is being deleted; wait until it is gone, then apply it again'
        )


def _require_version(live: resources.Resource, resource_version: int) -> None:
    if resource_version and resource_version != live.resource_version:
        raise Conflict(
            f'{live.kind} "{live.name}" has resource version {live.resource_version}, not {resource_version}:'
            " it was changed; read it again and repeat"
        )


async def _repeated(attempt: Callable[[], Awaitable[_Result]]) -> _Result:
    """Tries again on a fresh read when another writer came in between; a conflict that stays is the caller's."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return await attempt()
        except _Raced:
            continue
    return await attempt()
