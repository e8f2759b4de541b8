"""The planner's input is made anew of what has changed only."""

from __future__ import annotations

import dataclasses

from llmop.domain import replica, resources
from llmop.reconciler import codec, gather, mirror
from llmop.store import interface
from llmop.testing import builders
from llmop.testing.memory_store import MemoryStore

OWNER = resources.Resource(
    kind=resources.MODEL_DEPLOYMENT,
    name="chat",
    namespace="default",
    uid="uid-owner",
    created_at=1.0,
    spec={},
)


class World:
    """A store with replicas of one deployment, and what the planner is told of them."""

    def __init__(self) -> None:
        self.store = MemoryStore("k3v9qd")
        self._mirror = mirror.Mirror(self.store)
        self._gatherer = gather.Gatherer(self._mirror)

    async def make(self, *numbers: int) -> None:
        made = [builders.a_replica(number) for number in numbers]
        await self.store.commit(
            [
                interface.Create(
                    resource=codec.new_replica(each, OWNER),
                    ledger=interface.Ledger(
                        replica_uid=each.uid,
                        namespace=each.namespace,
                        replica_name=each.name,
                        cluster=each.cluster,
                        submission=each.submission,
                        secrets=interface.Secrets(api_key="key", agent_token="token"),
                    ),
                )
                for each in made
            ]
        )

    async def replicas(self) -> tuple[replica.Replica, ...]:
        await self._mirror.refresh()
        ledgers = {each.replica_uid: each for each in await self.store.ledgers()}
        return self._gatherer.replicas(OWNER, ledgers)


async def test_what_has_not_changed_is_the_same_value() -> None:
    world = World()
    await world.make(1, 2)
    first, second = await world.replicas()
    again = await world.replicas()
    assert (first, second) == again
    assert first is again[0]
    assert second is again[1]


async def test_a_new_status_and_a_new_row_of_the_ledger_are_seen() -> None:
    world = World()
    await world.make(1, 2)
    first, second = await world.replicas()
    stored = await world.store.get(resources.REPLICA, "default", first.name)
    status = interface.WriteStatus(
        kind=stored.kind,
        namespace=stored.namespace,
        name=stored.name,
        uid=stored.uid,
        expected_version=stored.resource_version,
        status={"node": "n7"},
    )
    submission = dataclasses.replace(second.submission, job_id="4711")
    fact = interface.RecordSubmission(
        replica_uid=second.uid, states=frozenset(replica.SubmissionState), submission=submission
    )
    await world.store.commit([status, fact])
    one, two = await world.replicas()
    assert ("n7", first.submission) == (one.node, one.submission)
    assert submission == two.submission


async def test_replicas_that_come_and_go_come_and_go() -> None:
    world = World()
    await world.make(1)
    (first,) = await world.replicas()
    await world.make(2)
    assert first.name in {each.name for each in await world.replicas()}
    gone = interface.Remove(
        kind=resources.REPLICA, namespace="default", name=first.name, uid=first.uid, tombstoned_at=2.0
    )
    await world.store.commit([gone])
    assert [builders.a_replica(2).name] == [each.name for each in await world.replicas()]
