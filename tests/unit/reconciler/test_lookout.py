"""Looking at clusters: what hangs delays nobody, silence of all is ours, and an accounting that fails is not waited for for ever."""

import dataclasses

import pytest
from tests.unit.reconciler.reconciler_rig import CHAT, Rig

from llmop.domain import replica, resources
from llmop.reconciler import lookout, observe
from llmop.testing import builders as make
from llmop.testing.virtual_slurm.faults import SnapshotFault


async def test_a_directory_that_hangs_is_said_and_the_cluster_is_looked_at_all_the_same() -> None:
    rig = Rig()
    await rig.start()
    rig.directory.hangs = True
    await rig.poll()
    await rig.settle()
    assert rig.watch.is_current
    condition = await rig.condition(resources.CLUSTER, make.CLUSTER, "", "SharedDirectory")
    assert ("False", "NotUsable") == (condition["status"], condition["reason"])
    assert "/shared/llmop: does not answer within" in condition["message"]
    rig.directory.hangs = False
    await rig.poll()
    await rig.settle()
    assert "True" == (await rig.condition(resources.CLUSTER, make.CLUSTER, "", "SharedDirectory"))["status"]


async def test_nobody_says_that_a_directory_can_be_used_before_it_was_looked_at() -> None:
    rig = Rig()
    await rig.start()
    await rig.settle()
    condition = await rig.condition(resources.CLUSTER, make.CLUSTER, "", "SharedDirectory")
    assert ("Unknown", "NotLookedYet") == (condition["status"], condition["reason"])
    await rig.poll()
    await rig.settle()
    condition = await rig.condition(resources.CLUSTER, make.CLUSTER, "", "SharedDirectory")
    assert ("True", "Usable") == (condition["status"], condition["reason"])


async def _ended(rig: Rig) -> list[resources.Resource]:
    """A replica whose job has failed; nobody has looked since."""
    await rig.start(replicas=1)
    await rig.poll()
    await rig.settle()
    (stored,) = await rig.replicas()
    rig.slurm.advance(rig.clock.now() + 1)
    (job,) = rig.slurm.running_jobs()
    rig.slurm.finish(job, 1)
    rig.slurm.advance(rig.clock.now() + 1)
    rig.directory.ends[stored.name] = replica.End(
        reason=replica.EndReason.MISSING_ARTIFACT, at=rig.clock.now(), message="no such image"
    )
    return [stored]


async def _end_of(rig: Rig, stored: resources.Resource) -> object:
    await rig.poll()
    await rig.settle()
    shown = await rig.store.get(resources.REPLICA, stored.namespace, stored.name)
    return shown.status["end"]["reason"]


async def test_an_end_is_told_by_the_record_in_the_shared_directory() -> None:
    rig = Rig()
    (stored,) = await _ended(rig)
    assert [] == rig.directory.cleared
    assert "MissingArtifact" == await _end_of(rig, stored)
    assert [stored.name] == rig.directory.cleared, "what a killed agent leaves holds secrets"


async def test_a_directory_that_hangs_costs_the_record_of_an_end_and_not_the_pass() -> None:
    rig = Rig()
    (stored,) = await _ended(rig)
    rig.directory.hangs = True
    assert "Failed" == await _end_of(rig, stored)


async def test_a_directory_that_hangs_is_waited_for_once_in_a_pass() -> None:
    rig = Rig()
    await rig.start(replicas=3)
    await rig.poll()
    await rig.settle()
    rig.slurm.advance(rig.clock.now() + 1)
    for job in rig.slurm.running_jobs():
        rig.slurm.finish(job, 1)
    rig.slurm.advance(rig.clock.now() + 1)
    rig.directory.hangs = True
    await rig.poll()
    before = rig.directory.asked_for_ends
    key = rig.reconciler.queue.take(rig.clock.monotonic())
    while key is not None and key != CHAT:
        await rig.reconciler.process(key)
        key = rig.reconciler.queue.take(rig.clock.monotonic())
    assert key == CHAT
    await rig.reconciler.process(key)
    assert 1 == rig.directory.asked_for_ends - before


async def test_after_a_gap_silence_means_nothing_for_a_while() -> None:
    rig = Rig()
    await rig.start()
    looking = rig.reconciler.lookout
    rig.clock.advance(lookout.GAP_S)
    looking.look_at_the_clock()
    assert not looking.is_blind(rig.clock.now())
    rig.clock.advance(lookout.GAP_S + 0.1)
    looking.look_at_the_clock()
    assert looking.is_blind(rig.clock.now())
    for _ in range(2):
        rig.clock.advance(looking.timing.unreachable_s / 2)
        looking.look_at_the_clock()
    assert not looking.is_blind(rig.clock.now())


@pytest.mark.parametrize(
    ("talking", "silent", "is_blind"),
    [(3, 0, False), (1, 2, False), (0, 3, True), (7, 3, True), (8, 3, False), (14, 6, True)],
)
async def test_many_that_are_silent_at_once_are_not_heard_by_us(
    talking: int, silent: int, *, is_blind: bool
) -> None:
    rig = Rig()
    await rig.start()
    replaced_s = rig.reconciler.lookout.timing.replaced_s
    for number in range(talking + silent):
        age_s = replaced_s + (1 if number < silent else -1)
        beat = make.a_heartbeat(make.a_replica(number), received_at=rig.clock.now() - age_s)
        rig.desk.heartbeats[beat.replica_uid] = beat
    assert is_blind == rig.reconciler.lookout.is_blind(rig.clock.now())


async def test_a_killed_agent_whose_end_is_recorded_is_not_counted_among_the_silent() -> None:
    """The newest replica that has ended is kept for people: three such ones must not make us blind for ever."""
    rig = Rig()
    (stored,) = await _ended(rig)
    (ledger,) = await rig.store.ledgers()
    for number in (1, 2):
        silent = make.a_heartbeat(make.a_replica(number), received_at=rig.clock.now())
        rig.desk.heartbeats[silent.replica_uid] = silent
    rig.desk.heartbeats[stored.uid] = dataclasses.replace(
        silent, replica_uid=stored.uid, job_id=ledger.submission.job_id or ""
    )
    await rig.poll()
    await rig.settle()
    assert "end" in (await rig.store.get(resources.REPLICA, stored.namespace, stored.name)).status
    rig.clock.advance(3600)
    assert not rig.reconciler.lookout.is_blind(rig.clock.now())


async def test_when_many_are_heard_again_the_others_get_a_while_too() -> None:
    rig = Rig()
    await rig.start()
    looking = rig.reconciler.lookout
    for number in range(3):
        beat = make.a_heartbeat(make.a_replica(number), received_at=rig.clock.now() - 3600)
        rig.desk.heartbeats[beat.replica_uid] = beat
    assert looking.is_blind(rig.clock.now())
    for uid, beat in list(rig.desk.heartbeats.items())[:2]:
        rig.desk.heartbeats[uid] = dataclasses.replace(beat, received_at=rig.clock.now())
    rig.clock.advance(looking.timing.unreachable_s - 1)
    assert looking.is_blind(rig.clock.now())
    rig.clock.advance(1)
    assert not looking.is_blind(rig.clock.now())


@pytest.mark.parametrize(
    ("rounds_s", "is_replaced"),
    [([10.0] * 31, True), ([10.0] * 28 + [30.0], False)],
    ids=["we were there", "we were away at the end"],
)
async def test_a_silent_replica_is_replaced_unless_we_were_away(
    rounds_s: list[float], *, is_replaced: bool
) -> None:
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
        phase=replica.AgentPhase.READY,
        received_at=rig.clock.now(),
        host="h",
        port=1,
    )
    for seconds in rounds_s:
        rig.slurm.advance(rig.clock.now() + seconds)
        rig.reconciler.lookout.look_at_the_clock()
    await rig.poll()
    await rig.settle()
    shown = await rig.store.get(resources.REPLICA, stored.namespace, stored.name)
    assert is_replaced == (shown.spec["drain"] is not None)


async def test_a_job_whose_agent_is_never_heard_is_a_failure_that_delays_the_next_one() -> None:
    rig = Rig()
    await rig.start(replicas=1, probes={"startup": {"timeout": "15m"}})
    await rig.poll()
    await rig.settle()
    (stored,) = await rig.replicas()
    for _ in range(34):
        rig.slurm.advance(rig.clock.now() + 30)
        await rig.poll()
        await rig.settle()
    shown = await rig.store.get(resources.REPLICA, stored.namespace, stored.name)
    assert "StartupTimeout" == shown.status["end"]["reason"]
    owner = await rig.store.get(resources.MODEL_DEPLOYMENT, "default", make.DEPLOYMENT)
    assert "StartupTimeout" == owner.status["lastFailure"]["reason"]
    assert f"/shared/llmop/replicas/{stored.name}/job.log" in owner.status["lastFailure"]["message"]
    assert 1 == owner.status["backoff"]["crashes"]
    assert [stored.name] != [each.name for each in await rig.replicas()], "another one is tried"


async def _vanished(rig: Rig) -> observe.ClusterWatch:
    """A watch of a cluster with accounting where the job of a replica is not in the queue."""
    rig.slurm.set_accounting_down(True)
    watch = observe.ClusterWatch(make.where(), rig.slurm, rig.directory, rig.clock, make.INSTALLATION)
    await _look(watch)
    return watch


async def _look(watch: observe.ClusterWatch) -> None:
    await watch.poll([make.a_replica()], {}, {}, 30.0)


async def test_an_accounting_that_fails_is_waited_for_and_then_not_any_more() -> None:
    rig = Rig(accounting=True)
    watch = await _vanished(rig)
    rig.clock.advance(observe.HISTORY_PATIENCE_S - 1)
    await _look(watch)
    assert watch.view().accounting
    rig.clock.advance(1)
    assert not watch.view().accounting


async def test_an_accounting_that_answers_again_is_one_again() -> None:
    rig = Rig(accounting=True)
    watch = await _vanished(rig)
    rig.clock.advance(observe.HISTORY_PATIENCE_S)
    assert not watch.view().accounting
    rig.slurm.set_accounting_down(False)
    await _look(watch)
    assert watch.view().accounting
    assert {make.a_replica().submission.job_name: ()} == watch.view().history


async def test_a_failing_accounting_is_asked_once_a_minute() -> None:
    rig = Rig(accounting=True)
    watch = await _vanished(rig)
    for advance_s, calls in ((observe.HISTORY_EVERY_S - 1, 1), (1, 2)):
        rig.clock.advance(advance_s)
        await _look(watch)
        assert calls == rig.slurm.calls["history"]


async def test_the_patience_counts_from_the_first_of_the_failures_in_a_row() -> None:
    rig = Rig(accounting=True)
    watch = await _vanished(rig)
    for _ in range(2):
        rig.clock.advance(observe.HISTORY_PATIENCE_S / 2)
        await _look(watch)
    assert not watch.view().accounting


async def test_a_cluster_that_fails_is_looked_at_less_and_less_often() -> None:
    rig = Rig()
    watch = observe.ClusterWatch(make.where(), rig.slurm, rig.directory, rig.clock, make.INSTALLATION)
    rig.slurm.fail_snapshots(SnapshotFault.TIMEOUT, times=6)
    waits = []
    for _ in range(6):
        await _look(watch)
        waits.append(watch.due_at - rig.clock.monotonic())
    shortest = make.where().poll_min_s
    assert [min(observe.FAILURE_MAX_S, shortest * 2**power) for power in range(6)] == waits


async def test_while_an_inbox_cannot_be_read_silence_means_nothing() -> None:
    rig = Rig()
    await rig.start()
    looking = rig.reconciler.lookout
    assert not looking.is_blind(rig.clock.now())
    rig.desk.is_deaf = True
    assert looking.is_blind(rig.clock.now())
    rig.desk.is_deaf = False
    assert looking.is_blind(rig.clock.now()), "the agents need a while to be heard again"
    rig.clock.advance(looking.timing.unreachable_s)
    assert not looking.is_blind(rig.clock.now())


async def _running(rig: Rig) -> tuple[str, str]:
    """Name and id of the job of a replica that runs; nobody has looked since it began to."""
    await rig.start(replicas=1)
    await rig.poll()
    await rig.settle()
    rig.slurm.advance(rig.clock.now() + 1)
    (job,) = rig.slurm.running_jobs()
    return job.name, str(job.id)


async def test_only_a_job_that_the_last_look_shows_running_gets_a_signal() -> None:
    rig = Rig()
    job_name, job_id = await _running(rig)
    looking = rig.reconciler.lookout
    assert "" != await looking.signal(make.CLUSTER, job_name, job_id)
    await rig.poll()
    assert "" != await looking.signal(make.CLUSTER, job_name, "999"), "an id that is not this replica's"
    assert "" != await looking.signal(make.CLUSTER, "llmop-abc123-other-0123abcd", job_id)
    assert "" != await looking.signal("elsewhere", job_name, job_id)
    assert 0 == rig.slurm.calls["signal"]
    assert "" == await looking.signal(make.CLUSTER, job_name, job_id)
    assert 1 == rig.slurm.calls["signal"]


async def test_the_table_says_that_agents_write_files_as_long_as_some_do() -> None:
    rig = Rig()
    await _running(rig)
    await rig.poll()
    await rig.settle()
    (stored,) = await rig.replicas()

    async def row() -> list[str]:
        await rig.poll()
        await rig.settle()
        shown = (await rig.store.get(resources.CLUSTER, "", make.CLUSTER)).status["fences"]
        return [each["works"] for each in shown if each["name"] == "AgentChannel"]

    assert [] == await row()
    for by_file, works in ((True, "False"), (False, "True")):
        rig.desk.heartbeats[stored.uid] = make.a_heartbeat(
            make.a_replica(1, uid=stored.uid), received_at=rig.clock.now(), by_file=by_file
        )
        assert [works] == await row()
