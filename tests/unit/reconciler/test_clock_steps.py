"""Somebody sets the wall clock, an hour back or an hour on: nothing stands still, and nobody is taken for dead or alive by it."""

import pytest
from tests.unit.reconciler.reconciler_rig import CHAT, Rig

from llmop.domain import endpoint, job, replica
from llmop.reconciler import cancel, observe, queue, routes
from llmop.testing import builders as make

HOUR = 3600.0
STEPS = pytest.mark.parametrize("step_s", [-HOUR, HOUR])


@STEPS
async def test_clusters_are_looked_at_when_they_would_have_been(step_s: float) -> None:
    rig = Rig()
    await rig.start()
    await rig.poll()
    rig.clock.step_wall(step_s)
    assert rig.watch.due_at > rig.clock.monotonic()
    rig.clock.advance(observe.IDLE_S)
    assert rig.watch.due_at <= rig.clock.monotonic()


@STEPS
async def test_what_was_put_off_comes_after_its_delay(step_s: float) -> None:
    rig = Rig()
    await rig.start({"submitRate": {"perSecond": 1, "burst": 1}}, replicas=2)
    await rig.poll()
    await rig.settle()
    assert 1 == rig.slurm.calls["submit"]
    rig.clock.step_wall(step_s)
    rig.clock.advance(0.5)
    await rig.settle()
    assert 1 == rig.slurm.calls["submit"]
    rig.clock.advance(0.5)
    await rig.settle()
    assert 2 == rig.slurm.calls["submit"]


async def test_what_a_plan_wants_to_see_again_is_seen_again_then() -> None:
    """The plan says when by the wall clock; the queue counts seconds."""
    rig = Rig()
    await rig.start(replicas=1)
    await rig.poll()
    await rig.settle()
    (stored,) = await rig.replicas()
    (ledger,) = await rig.store.ledgers()
    rig.desk.heartbeats[stored.uid] = replica.Heartbeat(
        replica_uid=stored.uid,
        job_id=ledger.submission.job_id or "",
        restart_count=0,
        phase=replica.AgentPhase.LOADING,
        received_at=rig.clock.now(),
    )
    rig.reconciler.heard(stored.namespace, stored.name)
    await rig.settle()
    due_at = rig.reconciler.queue.next_at()
    assert due_at is not None
    assert rig.reconciler.lookout.timing.suspect_s + 0.001 == pytest.approx(due_at - rig.clock.monotonic())


@STEPS
async def test_a_cancellation_that_did_nothing_is_tried_again_after_its_time(step_s: float) -> None:
    rig = Rig()
    await rig.start()
    await rig.poll()
    canceller = cancel.Canceller(
        rig.clock, spawn=rig.reconciler.spawn, later=lambda key, _: rig.reconciler.queue.add(key)
    )
    before = rig.slurm.calls["cancel"]  # the canary's
    for advance_s, calls in ((0.0, 1), (cancel.AGAIN_S - 1, 1), (1, 2)):
        rig.clock.advance(advance_s)
        canceller.cancel(rig.watch, ["1"], CHAT)
        await rig.settle()
        assert calls == rig.slurm.calls["cancel"] - before
        rig.clock.step_wall(step_s)


async def test_a_gateway_that_has_fallen_silent_is_not_waited_for() -> None:
    rig = Rig()
    await rig.start()
    book = rig.reconciler.book
    await rig.settle()
    rig.clock.advance(10)
    book.acknowledge("g1", book.table().version)
    leaving = endpoint.Endpoint(
        replica="x",
        uid="x",
        host="h",
        port=1,
        api_key="k",
        state=endpoint.EndpointState.DRAINING,
        deployment="default/a",
    )
    book.put("default/a", (leaving,), None)
    rig.clock.step_wall(-HOUR)
    rig.clock.advance(routes.GATEWAY_LIVE_S + 0.1)
    assert frozenset({"x"}) == book.drained()


@STEPS
async def test_heartbeats_keep_their_age(step_s: float) -> None:
    rig = Rig()
    await rig.start()
    each = make.a_replica()
    rig.desk.heartbeats[each.uid] = make.a_heartbeat(each, received_at=rig.clock.now() - 7)
    rig.reconciler.lookout.look_at_the_clock()
    rig.clock.step_wall(step_s)
    rig.reconciler.lookout.look_at_the_clock()
    assert 7 == rig.clock.now() - rig.desk.heartbeats[each.uid].received_at


@STEPS
async def test_the_time_since_the_start_stays(step_s: float) -> None:
    rig = Rig()
    await rig.start()
    rig.clock.advance(100)
    rig.clock.step_wall(step_s)
    rig.reconciler.lookout.look_at_the_clock()
    assert 100 == rig.clock.now() - rig.reconciler.lookout.since


@STEPS
async def test_the_times_of_a_snapshot_are_void_and_the_cluster_is_looked_at_at_once(step_s: float) -> None:
    rig = Rig()
    await rig.start()
    await rig.poll()
    rig.clock.step_wall(step_s)
    rig.reconciler.lookout.look_at_the_clock()
    assert None is rig.watch.view().snapshot_started_at
    assert rig.watch.due_at <= rig.clock.monotonic()
    await rig.poll()
    assert rig.clock.now() == rig.watch.view().snapshot_started_at


async def test_a_look_during_which_the_clock_was_set_is_void() -> None:
    rig = Rig()
    await rig.start()
    await rig.poll()

    class Steps:
        """Stands before the virtual Slurm."""

        async def snapshot(self) -> job.Snapshot:
            taken = await rig.slurm.snapshot()
            rig.clock.step_wall(-HOUR)
            rig.reconciler.lookout.look_at_the_clock()
            return taken

    rig.watch.cluster = Steps()  # type: ignore[assignment]
    await rig.poll()
    assert None is rig.watch.view().snapshot_started_at
    assert rig.watch.due_at <= rig.clock.monotonic()


async def test_everything_is_looked_at_again() -> None:
    rig = Rig()
    await rig.start(replicas=1)
    await rig.settle()
    rig.clock.step_wall(HOUR)
    rig.reconciler.lookout.look_at_the_clock()
    taken = [rig.reconciler.queue.take(rig.clock.monotonic()) for _ in range(3)]
    assert {CHAT, queue.Key(kind="Cluster", namespace="", name=make.CLUSTER), None} == set(taken)


@STEPS
async def test_silence_means_nothing_until_agents_had_time_to_be_heard_again(step_s: float) -> None:
    rig = Rig()
    await rig.start()
    lookout = rig.reconciler.lookout
    rig.clock.step_wall(step_s)
    lookout.look_at_the_clock()
    assert lookout.is_blind(rig.clock.now())
    for _ in range(2):
        rig.clock.advance(lookout.timing.unreachable_s / 2)
        lookout.look_at_the_clock()
    assert not lookout.is_blind(rig.clock.now())


async def test_a_slewed_clock_is_no_step() -> None:
    rig = Rig()
    await rig.start()
    await rig.poll()
    for _ in range(100):
        rig.clock.advance(0.2)
        rig.clock.step_wall(0.2 * 0.0005)  # 500 ppm: as fast as adjtimex(2) slews
        rig.reconciler.lookout.look_at_the_clock()
    assert None is not rig.watch.view().snapshot_started_at
    assert not rig.reconciler.lookout.is_blind(rig.clock.now())
