"""The virtual Slurm keeps Slurm's own promises, whatever happens to it, and does the same again for the same seed."""

import random

import pytest

from llmop.domain.job import JobRequest, JobState, Refused, Rejected, Submitted, SubmitUnknown
from llmop.testing.clock import FakeClock
from llmop.testing.virtual_slurm.driver import VirtualSlurm
from llmop.testing.virtual_slurm.faults import SnapshotFault, SubmitFault
from llmop.testing.virtual_slurm.jobs import Phase, VirtualJob
from llmop.testing.virtual_slurm.shape import Shape, constant
from llmop.testing.virtual_slurm.state import Signal


class Recorder:
    """Hooks that note everything; jobs end on TERM when `exits_on_term` says so."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.slurm: VirtualSlurm | None = None
        self.exits_on_term = lambda job: False

    def on_start(self, job: VirtualJob) -> None:
        self.log.append(("start", job.id))

    def on_signal(self, job: VirtualJob, signal: Signal) -> None:
        self.log.append((str(signal), job.id))
        if signal is Signal.TERM and self.exits_on_term(job) and self.slurm is not None:
            self.slurm.finish(job, 0)

    def on_end(self, job: VirtualJob) -> None:
        self.log.append(("end", job.id))


def world(seed: int = 0, **shape: object) -> tuple[VirtualSlurm, FakeClock, Recorder]:
    clock, hooks = FakeClock(seed), Recorder()
    settings: dict[str, object] = {
        "nodes": {"a": 4, "b": 4},
        "queue_wait": constant(10),
        "purge_lag": constant(0),
    }
    slurm = VirtualSlurm(clock, shape=Shape(**{**settings, **shape}), seed=seed, hooks=hooks)  # type: ignore[arg-type]
    hooks.slurm = slurm
    return slurm, clock, hooks


def request(name: str = "job", *options: tuple[str, str], **more: int) -> JobRequest:
    return JobRequest(name=name, options=options, script="", directory="/d", **{"time_limit_s": 600, **more})


async def states(slurm: VirtualSlurm) -> dict[str, JobState]:
    snapshot = await slurm.snapshot()
    assert snapshot.problem == ""
    return {job.job_id: job.state for job in snapshot.jobs}


async def test_a_job_waits_runs_completes_and_is_forgotten() -> None:
    slurm, clock, hooks = world(min_job_age_s=300)
    outcome = await slurm.submit(request())
    assert Submitted(job_id="1") == outcome
    assert {"1": JobState.PENDING} == await states(slurm)
    slurm.advance(clock.now() + 10)
    assert {"1": JobState.RUNNING} == await states(slurm)
    slurm.finish(slurm.running_jobs()[0], 70)
    assert {"1": JobState.COMPLETING} == await states(slurm)
    slurm.advance(clock.now() + 1)
    (job,) = (await slurm.snapshot()).jobs
    assert (JobState.FAILED, 70, 0, "a" if job.node == "a" else "b") == (
        job.state,
        job.exit_code,
        job.signal,
        job.node,
    )
    slurm.advance(clock.now() + 300)
    assert {} == await states(slurm)
    assert [("start", 1), ("end", 1)] == hooks.log


async def test_a_second_job_of_a_name_waits_until_the_first_has_ended() -> None:
    slurm, clock, _ = world()
    await slurm.submit(request("twin"))
    await slurm.submit(request("twin"))
    slurm.advance(clock.now() + 10)
    assert {"1": JobState.RUNNING, "2": JobState.PENDING} == await states(slurm)
    await slurm.cancel(["1"])
    slurm.advance(clock.now() + 31)
    assert {"1": JobState.CANCELLED, "2": JobState.RUNNING} == await states(slurm)


async def test_a_cancelled_job_has_kill_wait_seconds_to_end() -> None:
    slurm, clock, hooks = world(kill_wait_s=30)
    await slurm.submit(request())
    slurm.advance(clock.now() + 10)
    began = clock.now()
    assert "" == await slurm.cancel(["1"])
    assert [("start", 1), ("TERM", 1)] == hooks.log
    slurm.advance(began + 29.9)
    assert ("end", 1) not in hooks.log
    slurm.advance(began + 31)
    assert ("end", 1) == hooks.log[-1]


async def test_the_walltime_end_is_announced_when_asked_for_and_then_enforced() -> None:
    slurm, clock, hooks = world()
    await slurm.submit(request(signal_before_end_s=120))
    slurm.advance(clock.now() + 10)
    slurm.advance(clock.now() + 480)
    assert [("start", 1), ("USR1", 1)] == hooks.log
    slurm.advance(clock.now() + 120)
    assert ("TERM", 1) == hooks.log[-1]
    slurm.advance(clock.now() + 31)
    assert {"1": JobState.TIMEOUT} == await states(slurm)


async def test_an_accepted_submission_that_times_out_becomes_a_job_late() -> None:
    slurm, clock, _ = world()
    slurm.fail_submits(SubmitFault.ACCEPTED_UNSEEN, delay_s=90)
    assert isinstance(await slurm.submit(request("late")), SubmitUnknown)
    slurm.advance(clock.now() + 89)
    assert {} == await states(slurm)
    slurm.advance(clock.now() + 1)
    assert ["late"] == [job.name for job in slurm.live_jobs()]


async def test_what_hangs_in_a_frozen_slurmctld_becomes_a_job_at_the_thaw() -> None:
    slurm, _, _ = world()
    slurm.freeze()
    assert isinstance(await slurm.submit(request("frozen")), SubmitUnknown)
    assert (await slurm.snapshot()).problem != ""
    slurm.thaw()
    assert ["frozen"] == [job.name for job in slurm.live_jobs()]


async def test_known_texts_are_final_or_ask_to_wait_and_others_are_a_doubt() -> None:
    slurm, _, _ = world()
    assert isinstance(await slurm.submit(request("x", ("partition", "nope"))), Rejected)
    slurm.limit(max_submit=0)
    assert isinstance(await slurm.submit(request("x")), Refused)
    slurm.limit()
    slurm.fail_submits(SubmitFault.SAYS, text="sbatch: error: something that nobody has seen")
    assert isinstance(await slurm.submit(request("x")), SubmitUnknown)
    assert {} == await states(slurm)


@pytest.mark.parametrize(
    "fault",
    [
        SnapshotFault.TIMEOUT,
        SnapshotFault.FAILS,
        SnapshotFault.TRUNCATED,
        SnapshotFault.GARBAGE,
        SnapshotFault.NOISE,
    ],
)
async def test_a_visible_fault_makes_the_snapshot_incomplete(fault: SnapshotFault) -> None:
    slurm, _, _ = world()
    await slurm.submit(request())
    slurm.fail_snapshots(fault)
    broken = await slurm.snapshot()
    assert (False, ()) == (broken.is_complete, broken.jobs)
    assert {"1": JobState.PENDING} == await states(slurm)


async def test_preemption_with_grace_moves_the_end_and_tells_the_batch_process_nothing() -> None:
    slurm, clock, hooks = world()
    await slurm.submit(request())
    slurm.advance(clock.now() + 10)
    slurm.preempt(1, grace_s=60)
    (job,) = (await slurm.snapshot()).jobs
    assert (int(clock.now() + 60), int(clock.now())) == (job.ends_at, job.preempted_at)
    assert [("start", 1)] == hooks.log
    slurm.advance(clock.now() + 60 + 31)
    assert {"1": JobState.PREEMPTED} == await states(slurm)


async def test_a_dead_node_takes_its_jobs_along_at_once_but_slurm_notices_late() -> None:
    slurm, clock, hooks = world(nodes={"a": 1}, node_timeout_s=300)
    await slurm.submit(request(time_limit_s=3600))
    slurm.advance(clock.now() + 10)
    slurm.kill_node("a")
    assert [("start", 1), ("end", 1)] == hooks.log
    assert {"1": JobState.RUNNING} == await states(slurm)
    slurm.advance(clock.now() + 300)
    assert {"1": JobState.NODE_FAIL} == await states(slurm)


async def test_a_node_that_is_cut_off_keeps_its_processes_until_it_is_back() -> None:
    slurm, clock, hooks = world(nodes={"a": 1}, node_timeout_s=300)
    await slurm.submit(request(time_limit_s=3600))
    slurm.advance(clock.now() + 10)
    slurm.cut_off_node("a")
    slurm.advance(clock.now() + 300)
    assert {"1": JobState.NODE_FAIL} == await states(slurm)
    assert [1] == [job.id for job in slurm.running_jobs()]
    slurm.restore_node("a")
    assert () == slurm.running_jobs()
    assert [("start", 1), ("end", 1)] == hooks.log


async def test_a_requeued_job_keeps_its_id_and_counts_its_restarts() -> None:
    slurm, clock, _ = world(kill_wait_s=5, requeue_wait_s=121)
    await slurm.submit(request(time_limit_s=3600))
    slurm.advance(clock.now() + 10)
    slurm.requeue(1)
    slurm.advance(clock.now() + 10)
    (job,) = (await slurm.snapshot()).jobs
    assert ("1", JobState.PENDING, "BeginTime", 1) == (
        job.job_id,
        job.state,
        job.reason,
        job.restart_count,
    )
    slurm.advance(clock.now() + 121)
    assert {"1": JobState.RUNNING} == await states(slurm)


async def test_the_accounting_remembers_what_slurmctld_has_forgotten() -> None:
    slurm, clock, _ = world(accounting=True, min_job_age_s=2)
    await slurm.submit(request("gone"))
    await slurm.submit(request("other"))
    slurm.advance(clock.now() + 10)
    slurm.finish(slurm.running_jobs()[0], 0)
    slurm.advance(clock.now() + 60)
    assert {"2": JobState.RUNNING} == await states(slurm)
    history = await slurm.history(["gone"], 0)
    assert [("1", "gone", JobState.COMPLETED)] == [(job.job_id, job.name, job.state) for job in history.jobs]
    slurm.set_accounting_down(True)
    assert (True, ()) == ((await slurm.history(["gone"], 0)).available, (await slurm.history([], 0)).jobs)


async def test_lost_state_forgets_jobs_and_gives_their_ids_to_others() -> None:
    slurm, clock, hooks = world()
    await slurm.submit(request("first", time_limit_s=3600))
    slurm.advance(clock.now() + 10)
    slurm.lose_state(kill_after_s=60)
    assert Submitted(job_id="1") == await slurm.submit(request("second"))
    assert ["first"] == [job.name for job in slurm.running_jobs()]
    slurm.advance(clock.now() + 60)
    assert ["second"] == [job.name for job in slurm.running_jobs()]
    assert [("start", 1), ("start", 1), ("end", 1)] == hooks.log


async def test_a_killed_slurmctld_starts_young_jobs_twice_and_forgets_the_youngest() -> None:
    slurm, clock, hooks = world(queue_wait=constant(10))
    await slurm.submit(request("old"))
    slurm.advance(clock.now() + 10)
    assert Submitted(job_id="2") == await slurm.submit(request("young"))
    slurm.crash()
    assert {"1": JobState.PENDING} == await states(slurm)
    slurm.advance(clock.now() + 5)
    (job,) = (await slurm.snapshot()).jobs
    assert (JobState.RUNNING, 0) == (job.state, job.restart_count)
    assert [("start", 1), ("end", 1), ("start", 1)] == hooks.log
    assert Submitted(job_id="2") == await slurm.submit(request("another"))


async def test_a_process_that_a_killed_slurmctld_does_not_know_of_may_exit_by_itself() -> None:
    slurm, clock, hooks = world(queue_wait=constant(10))
    await slurm.submit(request("old"))
    slurm.advance(clock.now() + 10)
    slurm.crash()
    (job,) = slurm.running_jobs()
    slurm.finish(job, 0)
    assert {"1": JobState.PENDING} == await states(slurm)
    slurm.advance(clock.now() + 5)
    assert [("start", 1), ("end", 1), ("start", 1)] == hooks.log


async def storm(seed: int) -> tuple[list[tuple[str, int]], list[tuple[float, str]]]:
    """A few hundred random things happen; Slurm's promises are checked after each."""
    slurm, clock, hooks = world(seed, accounting=True)
    hooks.exits_on_term = lambda job: job.id % 2 == 1
    source = random.Random(seed)

    async def submit() -> None:
        name, gpus = f"j{source.randrange(12)}", source.choice(["gpu:1", "gpu:a100:2"])
        await slurm.submit(request(name, ("gres", gpus), time_limit_s=900, signal_before_end_s=120))

    def on_a_job(action: str, **arguments: object) -> None:
        jobs = slurm.live_jobs()
        if jobs:
            getattr(slurm, action)(source.choice(jobs).id, **arguments)

    def restore() -> None:
        slurm.restore_node("a")
        slurm.restore_node("b")
        slurm.thaw()
        slurm.set_down(False)
        for job in slurm.live_jobs():
            slurm.resume(job.id)
            slurm.release(job.id)

    happenings = [
        lambda: slurm.fail_submits(SubmitFault.ACCEPTED_UNSEEN, delay_s=source.choice([0, 50])),
        lambda: slurm.fail_snapshots(source.choice(list(SnapshotFault))),
        lambda: on_a_job("cancel_by_hand"),
        lambda: on_a_job("preempt", grace_s=source.choice([0, 60])),
        lambda: on_a_job("requeue"),
        lambda: on_a_job("suspend"),
        lambda: on_a_job("hold", by_admin=True),
        lambda: slurm.kill_node("a"),
        lambda: slurm.cut_off_node("b"),
        slurm.freeze,
        lambda: slurm.set_down(True),
        slurm.crash,
        lambda: slurm.lose_state() if source.random() < 0.1 else None,
        lambda: slurm.finish(source.choice(slurm.running_jobs()), 70) if slurm.running_jobs() else None,
        restore,
    ]
    for _ in range(300):
        await submit() if source.random() < 0.4 else source.choice(happenings)()
        slurm.advance(clock.now() + source.expovariate(1 / 40))
        await slurm.snapshot()
        await slurm.history(["j1", "j2"], 0)
        holding = [job for job in slurm.jobs() if job.phase not in (Phase.PENDING, Phase.ENDED)]
        names = [job.name for job in holding]
        assert sorted(set(names)) == sorted(names), "two jobs of one name hold a node"
        for node in ("a", "b"):
            assert sum(job.slots for job in holding if job.node == node) <= 4, f"{node} is overbooked"
    slurm.clear_faults()
    restore()
    await slurm.cancel([str(job.id) for job in slurm.live_jobs()])
    slurm.advance(clock.now() + 3000)
    assert () == slurm.jobs()
    assert () == slurm.running_jobs()
    return hooks.log, list(slurm.film)


@pytest.mark.parametrize("seed", range(8))
async def test_slurms_promises_hold_in_a_storm_and_nothing_is_left_after_it(seed: int) -> None:
    await storm(seed)


async def test_the_same_seed_makes_the_same_storm() -> None:
    assert await storm(99) == await storm(99)
