"""What every store does: SQLite, Postgres, and the double that simulations run on."""

import asyncio
import contextlib
import dataclasses
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmop.domain import errors, replica, resources
from llmop.domain.usage import Amount, UsageBy, UsageRow
from llmop.store import interface
from llmop.store.sql import open_store
from llmop.testing.memory_store import MemoryStore

ADDED, MODIFIED, DELETED = (
    interface.ChangeType.ADDED,
    interface.ChangeType.MODIFIED,
    interface.ChangeType.DELETED,
)
SUBMITTING, SUBMITTED = replica.SubmissionState.SUBMITTING, replica.SubmissionState.SUBMITTED


# Keeps what the store holds now; what it returns puts that back, as a failover to a standby that was behind. For what is only created since.
Standby = Callable[[], Callable[[], None]]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[interface.Store]:
    opened: interface.Store
    if request.param == "memory":
        opened = MemoryStore()
    elif request.param == "sqlite":
        opened = await open_store(f"sqlite:///{tmp_path}/store.db")
    else:
        rig = request.getfixturevalue("postgres_rig")
        opened = await open_store(rig.database("contract"))
    yield opened
    await opened.close()


@pytest.fixture
def standby(request: pytest.FixtureRequest, store: interface.Store, tmp_path: Path) -> Standby:
    if isinstance(store, MemoryStore):
        return store.saved

    def run(*statements: str) -> str:
        if request.node.callspec.params["store"] == "postgres":
            rig = request.getfixturevalue("postgres_rig")
            return [rig.query(statement, "contract") for statement in statements][-1].strip()
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as connection, connection:
            rows = [connection.execute(statement).fetchall() for statement in statements][-1]
        return str(rows[0][0]) if rows else ""

    def save() -> Callable[[], None]:
        revision = run("SELECT revision FROM counter")
        return lambda: (
            run(
                f"DELETE FROM objects WHERE resource_version > {revision}",
                f"DELETE FROM changes WHERE revision > {revision}",
                f"UPDATE counter SET revision = {revision}",
            )
            and None
        )

    return save


def thing(name: str, *, kind: str = resources.MODEL_DEPLOYMENT, **fields: Any) -> resources.Resource:
    fields = {
        "namespace": "team",
        "uid": f"uid-{kind}-{name}",
        "created_at": 1000.0,
        "spec": {"n": 1},
        **fields,
    }
    return resources.Resource(kind=kind, name=name, **fields)


def submission(name: str = "r1", **fields: Any) -> replica.Submission:
    return replica.Submission(**{"state": SUBMITTING, "job_name": f"llmop-abcdef-{name}", **fields})


def new_replica(name: str = "r1", **fields: Any) -> interface.Create:
    resource = thing(name, kind=resources.REPLICA)
    ledger = interface.Ledger(
        replica_uid=resource.uid,
        namespace="team",
        replica_name=name,
        cluster="here",
        submission=submission(name, **fields),
        secrets=interface.Secrets(api_key=f"key-{name}", agent_token=f"token-{name}"),
    )
    return interface.Create(resource=resource, ledger=ledger)


def update(read: resources.Resource, **fields: Any) -> interface.Update:
    return interface.Update(
        resource=dataclasses.replace(read, **fields), expected_version=read.resource_version
    )


def status(read: resources.Resource, value: Mapping[str, Any]) -> interface.WriteStatus:
    return interface.WriteStatus(
        kind=read.kind,
        namespace=read.namespace,
        name=read.name,
        uid=read.uid,
        expected_version=read.resource_version,
        status=value,
    )


def record(submitted: replica.Submission, name: str = "r1", **fields: Any) -> interface.RecordSubmission:
    return interface.RecordSubmission(
        replica_uid=f"uid-Replica-{name}",
        submission=submitted,
        **{"states": replica.UNRESOLVED, **fields},
    )


def remove(read: resources.Resource, **fields: Any) -> interface.Remove:
    return interface.Remove(kind=read.kind, namespace=read.namespace, name=read.name, uid=read.uid, **fields)


def event(message: str, at: float = 5000.0, **fields: Any) -> interface.RecordEvent:
    regarding = resources.Owner(kind=resources.REPLICA, name="r1", uid="uid-Replica-r1")
    known = {"namespace": "team", "regarding": regarding, "type": "Warning", "reason": "Refused"}
    return interface.RecordEvent(message=message, at=at, **{**known, **fields})


async def made(store: interface.Store, name: str, **fields: Any) -> resources.Resource:
    resource = thing(name, **fields)
    await store.commit([interface.Create(resource=resource)])
    return await store.get(*resource.key)


def outline(changes: tuple[interface.Change, ...]) -> list[tuple[int, interface.ChangeType, str]]:
    return [(change.revision, change.type, change.resource.name) for change in changes]


def brief(committed: interface.Committed) -> tuple[int, tuple[bool, ...]]:
    return (committed.revision, committed.applied)


# Objects


async def test_what_was_created_is_read_back_with_generation_1_and_the_revision(
    store: interface.Store,
) -> None:
    resource = thing(
        "a",
        labels={"team": "x"},
        annotations={"note": "y"},
        finalizers=("llmop/jobs",),
        owner=resources.Owner(kind="ModelDeployment", name="o", uid="uo"),
        owned_fields={"llmctl": ("spec.n", "spec.model")},
        spec={"n": 1, "list": [1, 2.5, None, True], "deep": {"b": {"a": "c"}}},
        status={"phase": "New"},
    )
    committed = await store.commit([interface.Create(resource=resource)])
    expected = dataclasses.replace(resource, generation=1, resource_version=committed.revision)
    assert expected == await store.get("ModelDeployment", "team", "a")
    assert (1, (True,)) == brief(committed)


async def test_a_commit_says_what_the_change_log_got(store: interface.Store) -> None:
    made = await store.commit([interface.Create(resource=thing(name)) for name in ("a", "b")])
    assert await store.changes(0) == made.changes
    assert [(1, ADDED, "a"), (1, ADDED, "b")] == outline(made.changes)
    live = await store.get("ModelDeployment", "team", "a")
    status = interface.WriteStatus(
        kind=live.kind, namespace="team", name="a", uid=live.uid, expected_version=1, status={"x": {"y": 1}}
    )
    written = await store.commit([status])
    assert await store.changes(1) == written.changes
    same = dataclasses.replace(status, expected_version=2)
    assert () == (await store.commit([same])).changes


async def test_what_a_change_rests_on_is_as_it_was_read_or_nothing_is_written(store: interface.Store) -> None:
    profile = thing("p", kind=resources.RESOURCE_PROFILE)

    def profiles(count: int, newest: int) -> interface.Unchanged:
        return interface.Unchanged(kinds={resources.CLUSTER: (0, 0), profile.kind: (count, newest)})

    async def refused(guard: interface.Unchanged) -> None:
        with pytest.raises(errors.Conflict, match="kind ResourceProfile have changed since they were read"):
            await store.commit([guard, interface.Create(resource=thing("third"))])

    none = profiles(0, 0)
    await store.commit([none, interface.Create(resource=thing("first"))])
    made = (await store.commit([none, interface.Create(resource=profile)])).revision
    await store.commit([profiles(1, made), interface.Create(resource=thing("second"))])
    for stale in (none, profiles(1, made - 1), profiles(2, made)):
        await refused(stale)
    live = await store.get(profile.kind, "team", "p")
    update = interface.Update(resource=dataclasses.replace(live, spec={"n": 2}), expected_version=made)
    changed = (await store.commit([update])).revision
    await refused(profiles(1, made))
    await store.commit([interface.Remove(kind=profile.kind, namespace="team", name="p", uid=profile.uid)])
    await refused(profiles(1, changed))
    await store.commit([none, interface.Create(resource=thing("third"))])
    names = [each.name for each in (await store.list("ModelDeployment")).items]
    assert ["first", "second", "third"] == names


async def test_a_new_store_is_at_revision_0_and_has_a_name_of_six_characters(store: interface.Store) -> None:
    assert 0 == await store.revision()
    assert 6 == len(await store.installation())
    assert interface.Listing(items=(), revision=0) == await store.list("Replica")


async def test_a_name_or_uid_that_is_taken_is_refused(store: interface.Store) -> None:
    read = await made(store, "a")
    for twin in (thing("a", uid="another"), thing("b", uid=read.uid)):
        with pytest.raises(errors.AlreadyExists):
            await store.commit([interface.Create(resource=twin)])
    assert (read,) == (await store.list("ModelDeployment")).items


async def test_one_name_can_be_used_in_every_namespace_and_kind(store: interface.Store) -> None:
    await store.commit(
        [
            interface.Create(resource=thing("a", uid="1")),
            interface.Create(resource=thing("a", uid="2", namespace="other")),
            interface.Create(resource=thing("a", uid="3", kind="Cluster", namespace="")),
        ]
    )
    assert "2" == (await store.get("ModelDeployment", "other", "a")).uid
    assert "3" == (await store.get("Cluster", "", "a")).uid


async def test_an_object_without_a_uid_is_a_mistake_of_the_caller(store: interface.Store) -> None:
    with pytest.raises(ValueError, match="has no uid"):
        await store.commit([interface.Create(resource=thing("a", uid=""))])


async def test_what_is_not_there_is_not_found(store: interface.Store) -> None:
    with pytest.raises(errors.NotFound, match='Cluster "a" not found'):
        await store.get("Cluster", "", "a")


async def test_lists_are_sorted_by_namespace_and_name_in_code_points(store: interface.Store) -> None:
    names = [("b", "x"), ("a", "z"), ("B", "x"), ("a-b", "a"), ("ab", "a"), ("a", "É"), ("a", "e")]
    await store.commit(
        [
            interface.Create(resource=thing(name, namespace=namespace, uid=f"{namespace}/{name}"))
            for namespace, name in names
        ]
    )
    listing = await store.list("ModelDeployment")
    assert sorted(names) == [(item.namespace, item.name) for item in listing.items]
    assert 1 == listing.revision
    inside = await store.list("ModelDeployment", "a")
    assert ["e", "z", "É"] == [item.name for item in inside.items]


@pytest.mark.parametrize(
    ("change", "generation", "version"),
    [
        ({"spec": {"n": 2}}, 2, 2),
        ({"spec": {"n": 1.0}}, 2, 2),
        ({"spec": {"n": True}}, 2, 2),
        ({"deleted_at": 2000.0}, 2, 2),
        ({"spec": {"n": 2}, "deleted_at": 2000.0}, 2, 2),
        ({"labels": {"a": "b"}}, 1, 2),
        ({"annotations": {"a": "b"}}, 1, 2),
        ({"finalizers": ("f",)}, 1, 2),
        ({"owned_fields": {"m": ("spec.n",)}}, 1, 2),
        ({"spec": {"n": 1}}, 1, 1),
        ({}, 1, 1),
        ({"status": {"not": "written"}, "created_at": 5.0, "generation": 9}, 1, 1),
    ],
    ids=str,
)
async def test_an_update_raises_the_version_if_it_changes_anything_and_the_generation_if_it_changes_intent(
    store: interface.Store, change: dict[str, Any], generation: int, version: int
) -> None:
    read = await made(store, "a")
    committed = await store.commit([update(read, **change)])
    after = await store.get(*read.key)
    assert (generation, version) == (after.generation, after.resource_version)
    assert (version, (True,)) == brief(committed)
    assert version == await store.revision()
    assert (read.status, read.created_at) == (after.status, after.created_at)
    assert version - 1 == len(await store.changes(1))


async def test_going_back_is_a_change_like_any_other(store: interface.Store) -> None:
    first = await made(store, "a")
    await store.commit([update(first, spec={"n": 2})])
    await store.commit([update(await store.get(*first.key), spec={"n": 1})])
    after = await store.get(*first.key)
    assert (3, 3) == (after.generation, after.resource_version)


async def test_a_deletion_time_stays_once_it_is_set(store: interface.Store) -> None:
    first = await made(store, "a", finalizers=("f",))
    await store.commit([update(first, deleted_at=2000.0)])
    await store.commit([update(await store.get(*first.key), deleted_at=None, finalizers=())])
    await store.commit([update(await store.get(*first.key), deleted_at=3000.0)])
    after = await store.get(*first.key)
    assert (2000.0, (), 2, 3) == (
        after.deleted_at,
        after.finalizers,
        after.generation,
        after.resource_version,
    )


async def test_an_update_of_something_that_has_changed_is_a_conflict(store: interface.Store) -> None:
    first = await made(store, "a")
    await store.commit([update(first, spec={"n": 2})])
    with pytest.raises(errors.Conflict, match=r"resource version 2, expected 1\): read it again"):
        await store.commit([update(first, spec={"n": 3})])
    assert {"n": 2} == (await store.get(*first.key)).spec


async def test_an_update_of_something_that_is_gone_or_was_made_anew_is_not_found(
    store: interface.Store,
) -> None:
    first = await made(store, "a")
    await store.commit([remove(first)])
    with pytest.raises(errors.NotFound):
        await store.commit([update(first, spec={"n": 3})])
    await made(store, "a", uid="another")
    with pytest.raises(errors.NotFound):
        await store.commit([update(first, spec={"n": 3})])


async def test_what_the_caller_changes_later_does_not_reach_the_store(store: interface.Store) -> None:
    spec = {"list": [1]}
    read = await made(store, "a", spec=spec)
    spec["list"].append(2)
    assert {"list": [1]} == (await store.get(*read.key)).spec


async def test_a_spec_may_be_large_and_hold_every_character(store: interface.Store) -> None:
    spec = {"big": "x" * 2**20, "text": "Grüße 🚀 \u0000 \u2028 \" \\ ' ; -- %s :x", "ключ": "値"}
    read = await made(store, "a", spec=spec, labels={"ü": "\u0001"})
    assert spec == read.spec
    assert spec == (await store.changes(0))[0].resource.spec


async def test_a_number_that_json_cannot_hold_is_refused_by_name(store: interface.Store) -> None:
    with pytest.raises(errors.Invalid, match="spec: cannot be written as JSON"):
        await made(store, "a", spec={"n": 2**70})
    assert 0 == await store.revision()


# Transactions


async def test_all_writes_of_one_call_get_one_revision(store: interface.Store) -> None:
    first = await made(store, "a")
    committed = await store.commit(
        [interface.Create(resource=thing("b")), update(first, spec={"n": 2}), new_replica()]
    )
    assert (2, (True, True, True)) == brief(committed)
    listing = await store.list("ModelDeployment")
    assert [("a", 2), ("b", 2)] == [(item.name, item.resource_version) for item in listing.items]


async def test_a_write_that_fails_takes_the_whole_call_with_it(store: interface.Store) -> None:
    first = await made(store, "a")
    stale = update(dataclasses.replace(first, resource_version=7), spec={"n": 9})
    for broken in (stale, interface.Create(resource=thing("a"))):
        with pytest.raises((errors.Conflict, errors.AlreadyExists)):
            await store.commit(
                [
                    interface.Create(resource=thing("b")),
                    update(first, spec={"n": 2}),
                    status(first, {"x": 1}),
                    new_replica(),
                    event("hello"),
                    broken,
                ]
            )
    assert (first,) == (await store.list("ModelDeployment")).items
    assert () == (await store.list("Event")).items
    assert () == await store.ledgers()
    assert 1 == await store.revision()
    assert 1 == len(await store.changes(0))
    await store.commit([new_replica()])


async def test_a_call_that_was_decided_on_a_list_fails_when_there_is_more_than_was_listed(
    store: interface.Store,
) -> None:
    first = await made(store, "a")
    known = interface.NoOthers(kind=first.kind, uids=frozenset({first.uid, "uid-that-is-gone"}))
    await made(store, "other", kind=resources.CLUSTER)
    await store.commit([known, update(first, spec={"n": 2})])

    with pytest.raises(errors.Conflict):
        await store.commit([interface.Create(resource=thing("b")), known])
    second = await made(store, "c")
    with pytest.raises(errors.Conflict):
        await store.commit([known, update(await store.get(*first.key), spec={"n": 3})])

    assert {"n": 2} == (await store.get(*first.key)).spec
    await store.commit([remove(second)])
    revision = await store.revision()
    assert (True,) == (await store.commit([known])).applied
    assert revision == await store.revision()


async def test_nothing_to_write_and_nothing_new_cost_no_revision(store: interface.Store) -> None:
    first = await made(store, "a", status={"x": [1]})
    same = [update(first), status(first, {"x": [1]}), remove(thing("gone"))]
    assert (1, (True,) * 3) == brief(await store.commit(same))
    assert (1, ()) == brief(await store.commit([]))


async def test_one_object_may_be_written_several_times_in_a_call_and_appears_once_in_the_log(
    store: interface.Store,
) -> None:
    first = await made(store, "a")
    committed = await store.commit(
        [
            update(first, spec={"n": 2}),
            status(first, {"x": 1}),
            interface.Create(resource=thing("b")),
            status(thing("b"), {"x": 2}),
            interface.Create(resource=thing("c")),
            remove(thing("c")),
        ]
    )
    assert (True,) * 6 == committed.applied
    changes = await store.changes(1)
    assert [(2, MODIFIED, "a"), (2, ADDED, "b")] == outline(changes)
    assert [({"n": 2}, {"x": 1}), ({"n": 1}, {"x": 2})] == [
        (change.resource.spec, change.resource.status) for change in changes
    ]
    assert changes[0].resource == await store.get(*first.key)


async def test_a_name_can_be_given_to_something_new_in_one_call(store: interface.Store) -> None:
    first = await made(store, "a")
    await store.commit([remove(first), interface.Create(resource=thing("a", uid="new"))])
    assert "new" == (await store.get(*first.key)).uid
    assert [(2, DELETED, "a"), (2, ADDED, "a")] == outline(await store.changes(1))


# The first guard


async def test_a_status_is_written_without_raising_the_generation(store: interface.Store) -> None:
    first = await made(store, "a")
    committed = await store.commit([status(first, {"phase": "Ready"})])
    after = await store.get(*first.key)
    assert dataclasses.replace(first, status={"phase": "Ready"}, resource_version=2) == after
    assert (2, (True,)) == brief(committed)


async def test_a_status_about_an_older_object_is_not_applied_and_the_rest_of_the_call_is(
    store: interface.Store,
) -> None:
    first = await made(store, "a")
    await store.commit([update(first, spec={"n": 2})])
    late = [status(first, {"x": 1}), status(thing("gone"), {}), interface.Create(resource=thing("b"))]
    assert (3, (False, False, True)) == brief(await store.commit(late))
    anew = dataclasses.replace(await store.get(*first.key), uid="another")
    assert (3, (False,)) == brief(await store.commit([status(anew, {"x": 1})]))
    assert {} == (await store.get(*first.key)).status


# Ledgers and the second guard


async def test_a_ledger_comes_with_its_replica_and_keeps_every_field(store: interface.Store) -> None:
    known = submission(
        "r1",
        job_id="7_1",
        script_hash="abc",
        intent_at=1.25,
        attempt_at=2.5,
        retry_at=4.5,
        rounds=2,
        refusals=3,
        message="Grüße\n",
        claimed_restart=0,
    )
    first = new_replica("r1", **{f.name: getattr(known, f.name) for f in dataclasses.fields(known)})
    await store.commit([new_replica("r2"), first])
    ledgers = await store.ledgers()
    assert ["r1", "r2"] == [ledger.replica_name for ledger in ledgers]
    assert first.ledger == ledgers[0]
    assert (first.ledger,) == await store.ledgers(["uid-Replica-r1", "nobody"])
    assert () == await store.ledgers([])


async def test_a_job_name_is_never_given_twice_not_even_after_its_replica_is_gone(
    store: interface.Store,
) -> None:
    first = new_replica("r1")
    await store.commit([first])
    twin = new_replica("r2", job_name="llmop-abcdef-r1")
    with pytest.raises(errors.AlreadyExists, match='Job name "llmop-abcdef-r1" already exists'):
        await store.commit([twin])
    await store.commit([remove(first.resource, tombstoned_at=2000.0)])
    with pytest.raises(errors.AlreadyExists):
        await store.commit([twin])
    await store.compact(changes_before=0, tombstones_before=2001.0, events_before=0.0)
    await store.commit([twin])


async def test_a_fact_is_recorded_although_the_object_has_changed(store: interface.Store) -> None:
    create = new_replica()
    await store.commit([create])
    read = await store.get(*create.resource.key)
    await store.commit([status(read, {"drain": True})])
    known = submission(state=SUBMITTED, job_id="7")
    assert (True,) == (await store.commit([record(known)])).applied
    assert [known] == [ledger.submission for ledger in await store.ledgers()]
    after = await store.get(*create.resource.key)
    assert (2, {"drain": True}) == (after.resource_version, after.status)


async def test_a_fact_is_not_recorded_in_another_state_or_without_a_ledger(store: interface.Store) -> None:
    await store.commit([new_replica(state=replica.SubmissionState.ENDED)])
    before = await store.ledgers()
    committed = await store.commit([record(submission(job_id="7")), record(submission(), name="nobody")])
    assert (1, (False, False)) == brief(committed)
    assert before == await store.ledgers()


async def test_the_same_fact_again_is_applied_and_changes_nothing(store: interface.Store) -> None:
    await store.commit([new_replica()])
    assert (1, (True,)) == brief(await store.commit([record(submission())]))


async def test_a_ledger_change_has_a_revision_but_is_no_change_of_an_object(store: interface.Store) -> None:
    await store.commit([new_replica()])
    committed = await store.commit([record(submission(rounds=1))])
    assert (2, (True,)) == brief(committed)
    assert () == await store.changes(1)


async def test_of_eight_jobs_that_claim_one_replica_exactly_one_gets_it(store: interface.Store) -> None:
    await store.commit([new_replica()])

    async def claim(job: str) -> bool:
        known = submission(state=SUBMITTED, job_id=job)
        every = frozenset(replica.SubmissionState)
        return (await store.commit([record(known, states=every, job_id_is=job)])).applied[0]

    jobs = [str(number) for number in range(8)]
    won = dict(zip(jobs, await asyncio.gather(*map(claim, jobs)), strict=True))
    (ledger,) = await store.ledgers()
    assert [ledger.submission.job_id] == [job for job, applied in won.items() if applied]
    assert await claim(str(ledger.submission.job_id)), "the holder may claim again"


async def test_a_removed_replica_leaves_its_ledger_as_a_tombstone_that_still_takes_facts(
    store: interface.Store,
) -> None:
    create = new_replica()
    await store.commit([create])
    await store.commit([remove(create.resource, tombstoned_at=2000.0)])
    with pytest.raises(errors.NotFound):
        await store.get(*create.resource.key)
    assert [2000.0] == [ledger.tombstoned_at for ledger in await store.ledgers()]
    assert (True,) == (await store.commit([record(submission(job_id="7"))])).applied
    again = remove(create.resource, tombstoned_at=3000.0)
    assert (3, (True,)) == brief(await store.commit([again]))
    (ledger,) = await store.ledgers()
    assert (2000.0, "7") == (ledger.tombstoned_at, ledger.submission.job_id)


async def test_a_replica_is_not_removed_without_a_tombstone(store: interface.Store) -> None:
    create = new_replica()
    await store.commit([create])
    with pytest.raises(ValueError, match="needs a time for the tombstone"):
        await store.commit([remove(create.resource)])
    assert "r1" == (await store.get(*create.resource.key)).name


async def test_something_else_of_that_name_is_not_removed(store: interface.Store) -> None:
    first = await made(store, "a")
    committed = await store.commit([remove(dataclasses.replace(first, uid="another"))])
    assert (1, (True,)) == brief(committed)
    assert first == await store.get(*first.key)


async def test_secrets_do_not_show_when_a_ledger_is_printed(store: interface.Store) -> None:
    await store.commit([new_replica()])
    (ledger,) = await store.ledgers()
    assert ("key-r1", "token-r1") == (ledger.secrets.api_key, ledger.secrets.agent_token)
    assert "key-r1" not in repr(ledger)
    assert "token-r1" not in repr(ledger)


# Epochs


async def test_whoever_was_deposed_writes_nothing_any_more_neither_status_nor_effects(
    store: interface.Store,
) -> None:
    old = await store.take_over("first", 0.0)
    await store.commit([new_replica()], epoch=old)
    new = await store.take_over("second", 0.0)
    assert old < new
    read = await store.get("Replica", "team", "r1")
    for write in (
        status(read, {"x": 1}),
        record(submission(job_id="7")),
        interface.Create(resource=thing("b")),
        event("hello"),
        update(read),
    ):
        with pytest.raises(errors.Deposed, match=f"epoch {old} is over"):
            await store.commit([write], epoch=old)
    with pytest.raises(errors.Deposed):
        await store.commit([], epoch=old)
    assert 1 == await store.revision()
    assert [None] == [ledger.submission.job_id for ledger in await store.ledgers()]
    await store.commit([record(submission(job_id="7"))], epoch=new)
    await store.commit([interface.Create(resource=thing("b"))])


async def test_an_epoch_is_the_second_in_which_it_begins_and_rises_whatever_the_clock_says(
    store: interface.Store,
) -> None:
    assert 1_800_000_000 == await store.take_over("first", 1_800_000_000.9)
    assert 1_800_000_001 == await store.take_over("in the same second", 1_800_000_000.95)
    assert 1_800_000_002 == await store.take_over("with a clock that is behind", 1_700_000_000.0)
    assert 1_800_003_600 == await store.take_over("an hour later", 1_800_003_600.0)


async def test_who_reconciles_can_be_looked_up(store: interface.Store) -> None:
    first = await store.take_over("first", 0.0)
    assert first == await store.epoch()
    second = await store.take_over("second", 0.0)
    assert second == await store.epoch()
    assert 0 == await store.revision(), "looking writes nothing"


# Durable commits


async def test_a_durable_commit_is_ordered_with_the_others(store: interface.Store) -> None:
    revisions = []
    for number in range(6):
        committed = await store.commit(
            [interface.Create(resource=thing(f"a{number}"))], durable=number % 2 == 0
        )
        revisions.append(committed.revision)
    assert [1, 2, 3, 4, 5, 6] == revisions
    assert [f"a{number}" for number in range(6)] == [c.resource.name for c in await store.changes(0)]


# Events


async def test_equal_events_are_one_whose_count_rises(store: interface.Store) -> None:
    await store.commit([event("no room", at=1_700_000_000.0)])
    await store.commit([event("no room", at=1_700_000_060.5), event("no room", at=1_700_000_030.0)])
    (seen,) = (await store.list("Event")).items
    expected = {
        "regarding": {"kind": "Replica", "name": "r1", "uid": "uid-Replica-r1"},
        "type": "Warning",
        "reason": "Refused",
        "message": "no room",
        "count": 3,
        "firstSeenAt": "2023-11-14T22:13:20.000Z",
        "lastSeenAt": "2023-11-14T22:14:20.500Z",
    }
    assert expected == seen.spec
    assert ("team", 1, 1_700_000_000.0) == (seen.namespace, seen.generation, seen.created_at)
    assert seen.name.startswith("r1.")
    assert [(1, ADDED), (2, MODIFIED)] == [(c.revision, c.type) for c in await store.changes(0)]


async def test_events_of_other_reasons_and_objects_are_apart(store: interface.Store) -> None:
    other = resources.Owner(kind=resources.REPLICA, name="r1", uid="another")
    await store.commit(
        [event("m"), event("m", reason="Other"), event("m", type="Normal"), event("m", regarding=other)]
    )
    assert [1, 1, 1, 1] == [item.spec["count"] for item in (await store.list("Event")).items]


async def test_after_ten_different_messages_further_ones_are_combined(store: interface.Store) -> None:
    for number in range(14):
        await store.commit([event(f"message {number}", at=5000.0 + number)])
    await store.commit([event("message 3", at=6000.0), event("another reason", reason="Other")])
    items = [item for item in (await store.list("Event")).items if item.spec["reason"] == "Refused"]
    counts = {item.spec["message"]: item.spec["count"] for item in items}
    expected = {f"message {number}": 1 for number in range(10)} | {
        "message 3": 2,
        "(combined from similar events): message 13": 4,
    }
    assert expected == counts


async def test_ten_different_messages_in_one_call_count_like_in_ten_calls(store: interface.Store) -> None:
    await store.commit([event(f"message {number}") for number in range(12)])
    assert 11 == len((await store.list("Event")).items)


async def test_old_events_go_and_their_going_is_a_change(store: interface.Store) -> None:
    await store.commit([event("old", at=1000.0), event("new", at=1000.0)])
    await store.commit([event("new", at=2000.0)])
    await store.compact(changes_before=0, tombstones_before=0.0, events_before=2000.0)
    assert ["new"] == [item.spec["message"] for item in (await store.list("Event")).items]
    assert [(3, DELETED, "old")] == [
        (c.revision, c.type, c.resource.spec["message"]) for c in await store.changes(2)
    ]
    await store.commit([event("old", at=3000.0)])
    assert [1, 2] == sorted(item.spec["count"] for item in (await store.list("Event")).items)


async def test_events_that_went_make_room_for_different_messages(store: interface.Store) -> None:
    await store.commit([event(f"old {number}", at=1000.0) for number in range(10)])
    await store.compact(changes_before=0, tombstones_before=0.0, events_before=2000.0)
    await store.commit([event("new", at=3000.0)])
    assert ["new"] == [item.spec["message"] for item in (await store.list("Event")).items]


# The change log


async def test_the_log_has_every_change_in_order_and_says_where_a_revision_ends(
    store: interface.Store,
) -> None:
    first = await made(store, "a")
    await store.commit([update(first, spec={"n": 2}), interface.Create(resource=thing("b"))])
    await store.commit([remove(first)])
    changes = await store.changes(0)
    assert [(1, ADDED, "a"), (2, MODIFIED, "a"), (2, ADDED, "b"), (3, DELETED, "a")] == outline(changes)
    assert [True, False, True, True] == [change.complete for change in changes]
    assert {"n": 2} == changes[-1].resource.spec, "as it was last"
    assert () == await store.changes(3)


async def test_a_page_never_cuts_a_revision_apart(store: interface.Store) -> None:
    await store.commit([interface.Create(resource=thing(name)) for name in "abc"])
    await store.commit([interface.Create(resource=thing("d"))])
    assert ["a", "b", "c"] == [change.resource.name for change in await store.changes(0, limit=1)]
    assert ["a", "b", "c"] == [change.resource.name for change in await store.changes(0, limit=3)]
    assert [True] == [change.complete for change in (await store.changes(0, limit=2))[2:]]
    assert ["d"] == [change.resource.name for change in await store.changes(1, limit=1)]


async def test_a_reader_from_before_the_history_has_to_list_again(store: interface.Store) -> None:
    for name in "abcd":
        await made(store, name)
    await store.compact(changes_before=3, tombstones_before=0.0, events_before=0.0)
    for after in (0, 1):
        with pytest.raises(errors.Expired) as raised:
            await store.changes(after)
        assert (after, 3) == (raised.value.requested, raised.value.oldest)
    assert ["c", "d"] == [change.resource.name for change in await store.changes(2)]
    await store.compact(changes_before=1, tombstones_before=0.0, events_before=0.0)
    assert ["c", "d"] == [change.resource.name for change in await store.changes(2)]
    await store.compact(changes_before=100, tombstones_before=0.0, events_before=0.0)
    assert () == await store.changes(4)
    await made(store, "e")
    assert ["e"] == [change.resource.name for change in await store.changes(4)]


async def test_a_reader_that_knows_a_future_revision_comes_from_another_store(store: interface.Store) -> None:
    with pytest.raises(errors.Expired):
        await store.changes(5)
    with pytest.raises(errors.Expired):
        await anext(store.watch(5))


async def test_tombstones_are_kept_until_they_are_old(store: interface.Store) -> None:
    creates = [new_replica(name) for name in ("r1", "r2", "r3")]
    await store.commit(creates)
    await store.commit([remove(creates[0].resource, tombstoned_at=1000.0)])
    await store.commit([remove(creates[1].resource, tombstoned_at=2000.0)])
    await store.compact(changes_before=0, tombstones_before=2000.0, events_before=0.0)
    assert ["r2", "r3"] == [ledger.replica_name for ledger in await store.ledgers()]


# Watching


async def take(watch: AsyncIterator[interface.Change], count: int) -> list[interface.Change]:
    async with asyncio.timeout(30):
        return [await anext(watch) for _ in range(count)]


async def test_a_watch_tells_what_was_and_what_comes(store: interface.Store) -> None:
    await made(store, "a")
    await made(store, "b")
    watch = store.watch(1)
    assert ["b"] == [change.resource.name for change in await take(watch, 1)]
    waiting = asyncio.ensure_future(take(watch, 2))
    await asyncio.sleep(0)
    await store.commit([new_replica()])
    await store.commit([record(submission(job_id="7"))])
    await made(store, "c")
    assert [("r1", 3), ("c", 5)] == [(c.resource.name, c.revision) for c in await waiting]


async def test_many_watchers_see_every_change_of_many_writers_in_order(store: interface.Store) -> None:
    writers, each = 8, 25
    watches = [store.watch(0) for _ in range(5)]

    async def write(writer: int) -> None:
        for number in range(each):
            await store.commit([interface.Create(resource=thing(f"w{writer}-{number}"))])

    reading = [asyncio.ensure_future(take(watch, writers * each)) for watch in watches]
    await asyncio.gather(*(write(writer) for writer in range(writers)))
    for seen in await asyncio.gather(*reading):
        assert list(range(1, writers * each + 1)) == [change.revision for change in seen]
        assert writers * each == len({change.resource.name for change in seen})


async def test_a_watcher_that_is_slow_misses_nothing_that_is_kept(store: interface.Store) -> None:
    slow, fast = store.watch(0), store.watch(0)
    await made(store, "first")
    assert 1 == len(await take(slow, 1)) == len(await take(fast, 1))
    for start in range(0, 700, 70):
        await store.commit(
            [interface.Create(resource=thing(f"a{number}")) for number in range(start, start + 70)]
        )
        await take(fast, 70)
    assert [f"a{number}" for number in range(700)] == [c.resource.name for c in await take(slow, 700)]


async def test_a_watcher_that_is_too_slow_is_told_that_its_history_is_gone(store: interface.Store) -> None:
    watch = store.watch(0)
    await made(store, "a")
    await take(watch, 1)
    for number in range(5):
        await made(store, f"b{number}")
    await store.compact(changes_before=5, tombstones_before=0.0, events_before=0.0)
    with pytest.raises(errors.Expired, match="list again"):
        await take(watch, 1)


async def test_after_a_failover_that_lost_commits_watchers_list_again_and_go_on(
    store: interface.Store, standby: Standby
) -> None:
    await made(store, "a")
    fail_over = standby()
    await made(store, "b")
    await made(store, "c")
    watch = store.watch(0)
    await take(watch, 3)
    waiting = asyncio.ensure_future(take(watch, 1))
    await asyncio.sleep(0)
    fail_over()
    with pytest.raises(errors.Expired):
        await waiting
    listing = await store.list(resources.MODEL_DEPLOYMENT)
    assert (["a"], 1) == ([each.name for each in listing.items], listing.revision)
    again = asyncio.ensure_future(take(store.watch(listing.revision), 1))
    await asyncio.sleep(0)
    await made(store, "d")
    assert [("d", 2)] == [(change.resource.name, change.revision) for change in await again]


async def test_readers_see_whole_transactions_only(store: interface.Store) -> None:
    """Two objects that always change together are never seen apart, and a list names the revision it shows."""
    await store.commit([interface.Create(resource=thing(name)) for name in "ab"])
    done = asyncio.Event()

    async def write() -> None:
        for number in range(40):
            first, second = (await store.list("ModelDeployment")).items
            await store.commit([update(first, spec={"n": number}), update(second, spec={"n": number})])
        done.set()

    async def read() -> None:
        while not done.is_set():
            listing = await store.list("ModelDeployment")
            first, second = listing.items
            assert first.spec == second.spec
            assert first.resource_version == second.resource_version == listing.revision
            await asyncio.sleep(0)

    await asyncio.gather(write(), read(), read())


# The double


async def test_the_double_crashes_where_it_is_told() -> None:
    crash_at: list[str] = []

    class CrashError(Exception):
        pass

    def hook(moment: str, writes: object) -> None:
        if moment in crash_at:
            raise CrashError

    double = MemoryStore(hook=hook)
    crash_at[:] = ["before commit"]
    with pytest.raises(CrashError):
        await made(double, "a")
    assert 0 == await double.revision()
    crash_at[:] = ["after commit"]
    with pytest.raises(CrashError):
        await made(double, "a")
    assert 1 == await double.revision()
    assert "a" == (await double.get("ModelDeployment", "team", "a")).name


def used(hour: int, key: str, model: str, requests: int) -> UsageRow:
    return UsageRow(
        hour=hour,
        key=key,
        model=model,
        amount=Amount(requests=requests, prompt_tokens=10 * requests, completion_tokens=2**40, limited=1),
    )


async def sums(store: interface.Store, *by: UsageBy, **more: Any) -> list[tuple[int, str, str, int]]:
    found = await store.usage(by, **({"since": 0, "until": math.inf} | more))
    return [(row.hour, row.key, row.model, row.amount.requests) for row in found]


async def test_a_batch_of_usage_is_counted_once(store: interface.Store) -> None:
    first = [used(3600, "default/a", "m", 1), used(3600, "default/b", "m", 2)]
    assert await store.add_usage("s1", 1, first)
    assert not await store.add_usage("s1", 1, first)
    assert await store.add_usage("s1", 3, [used(3600, "default/a", "m", 4), used(7200, "", "org/n", 8)])
    assert not await store.add_usage("s1", 2, first)
    assert await store.add_usage("s2", 1, [used(7200, "", "org/n", 16)])
    assert [
        (3600, "default/a", "m", 5),
        (3600, "default/b", "m", 2),
        (7200, "", "org/n", 24),
    ] == await sums(store, *UsageBy)
    (total,) = await store.usage((), since=0, until=math.inf)
    assert Amount(requests=31, prompt_tokens=310, completion_tokens=5 * 2**40, limited=5) == total.amount


async def test_usage_is_summed_over_what_is_not_asked_for(store: interface.Store) -> None:
    assert [] == await sums(store)
    rows = [used(hour * 3600, key, model, 1) for hour in (1, 2, 3) for key in "ab" for model in "mn"]
    await store.add_usage("s", 1, rows)
    assert [(0, "a", "", 6), (0, "b", "", 6)] == await sums(store, UsageBy.KEY)
    assert [(0, "", "m", 3), (0, "", "n", 3)] == await sums(store, UsageBy.MODEL, key="a")
    assert [(3600, "", "", 2), (7200, "", "", 2), (10800, "", "", 2)] == await sums(
        store, UsageBy.HOUR, model="n"
    )
    assert [(0, "", "", 4)] == await sums(store, since=3601, until=10800)
    await store.drop_usage(7200)
    assert [7200, 10800] == [hour for hour, *_ in await sums(store, UsageBy.HOUR)]


async def test_usage_changes_no_object(store: interface.Store) -> None:
    before = await store.revision()
    await store.add_usage("s", 1, [used(3600, "a", "m", 1)])
    assert before == await store.revision()
