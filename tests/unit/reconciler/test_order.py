"""What the loop looks at, and when: a pass for each change, after the writes that somebody waits for."""

from __future__ import annotations

import dataclasses

from tests.unit.reconciler.reconciler_rig import CHAT, Rig

from llmop.domain import resources
from llmop.reconciler import loop
from llmop.store import interface


async def test_a_pass_that_reads_a_change_of_its_own_object_is_not_followed_by_another_one_for_it() -> None:
    rig = Rig()
    await rig.start(replicas=0)
    await rig.poll()
    await rig.settle()
    live = await rig.store.get(resources.MODEL_DEPLOYMENT, "default", CHAT.name)
    changed = dataclasses.replace(live, labels={"team": "x"})
    await rig.store.commit([interface.Update(resource=changed, expected_version=live.resource_version)])
    rig.reconciler.queue.add(CHAT)
    key = rig.reconciler.queue.take(rig.clock.monotonic())
    assert key == CHAT
    await rig.reconciler.process(key)
    assert rig.reconciler.queue.take(rig.clock.monotonic()) is None


async def test_a_change_of_another_object_is_looked_at_next() -> None:
    rig = Rig()
    await rig.start(replicas=0)
    await rig.poll()
    await rig.settle()
    live = await rig.store.get(resources.MODEL_DEPLOYMENT, "default", CHAT.name)
    changed = dataclasses.replace(live, labels={"team": "x"})
    await rig.store.commit([interface.Update(resource=changed, expected_version=live.resource_version)])
    other = dataclasses.replace(CHAT, name="gone")
    rig.reconciler.queue.add(other)
    taken = rig.reconciler.queue.take(rig.clock.monotonic())
    assert taken == other
    await rig.reconciler.process(taken)
    assert rig.reconciler.queue.take(rig.clock.monotonic()) == CHAT


async def test_passes_wait_for_a_lull_in_the_writes_of_users_and_not_for_ever() -> None:
    rig = Rig()
    await rig.start(replicas=0)
    assert rig.reconciler.lull_s() <= 0
    rig.reconciler.hint(*CHAT_KEY)
    assert 0 < rig.reconciler.lull_s() <= loop.LULL_S
    rig.clock.advance(2 * loop.LULL_S)
    assert rig.reconciler.lull_s() <= 0

    waited = 0.0
    rig.reconciler.hint(*CHAT_KEY)
    while rig.reconciler.lull_s() > 0:
        rig.clock.advance(loop.LULL_S / 2)
        waited += loop.LULL_S / 2
        rig.reconciler.hint(*CHAT_KEY)  # somebody goes on and on
    assert waited <= loop.BURST_S + loop.LULL_S
    rig.clock.advance(2 * loop.LULL_S)
    rig.reconciler.hint(*CHAT_KEY)
    assert rig.reconciler.lull_s() > 0, "after a lull the next burst is waited for too"


CHAT_KEY = (CHAT.kind, CHAT.namespace, CHAT.name)
