"""Somebody goes back to a template: replicas of it that still run are what is wanted, whatever number their revision has."""

import dataclasses
from collections.abc import Sequence

import pytest

from llmop.domain import job, replica
from llmop.domain.staging import Pin
from llmop.planner import backoff, compute, revisions, values
from llmop.testing import builders as make

HASHES = ("good", "bad", "good")
PIN = Pin(reference="hf://a/b@main", digest="c" * 40)


def desired(
    replicas: Sequence[replica.Replica], *, hashes: Sequence[str] = HASHES, wanted: int = 3, **changes: object
) -> values.Desired:
    """Revisions 1, 2, ... with these hashes; the template is that of the last one."""
    text = changes.pop("template_hash", hashes[-1])
    base = make.desired(replicas, revision=len(hashes), **changes)
    spec = dataclasses.replace(base.deployment.spec, replicas=wanted)
    kept = tuple(
        dataclasses.replace(each, hash=own) for each, own in zip(base.revisions, hashes, strict=True)
    )
    owner = dataclasses.replace(base.deployment, spec=spec)
    return dataclasses.replace(base, deployment=owner, revisions=kept, template_hash=text)


def of_revisions(*numbers: int) -> list[replica.Replica]:
    return [make.a_replica(index, revision=number) for index, number in enumerate(numbers, start=1)]


def plan(wanted: values.Desired, replicas: Sequence[replica.Replica]) -> values.Plan:
    jobs = [make.a_job(each) for each in replicas]
    return compute.plan(
        wanted, make.observed(jobs, [make.a_heartbeat(each) for each in replicas]), make.names()
    )


def drained(result: values.Plan) -> list[tuple[str, str]]:
    return [(each.replica.name, each.why) for each in result.actions if isinstance(each, values.StartDrain)]


def made(result: values.Plan) -> list[int]:
    return [each.replica.revision for each in result.actions if isinstance(each, values.CreateReplica)]


def removed(result: values.Plan) -> list[int]:
    return [each.revision.number for each in result.actions if isinstance(each, values.RemoveRevision)]


def ready(result: values.Plan) -> tuple[str, str]:
    (found,) = [each for each in result.status.record.conditions if each.type == "Ready"]
    return str(found.status), found.reason


def test_going_back_replaces_nobody_that_runs() -> None:
    """In the pass that makes the newer number too."""
    replicas = of_revisions(1, 1, 1)
    for before in (
        desired(replicas, hashes=("good", "bad"), template_hash="good"),
        desired(replicas),
    ):
        result = plan(before, replicas)
        assert ([], []) == (drained(result), made(result))
        assert ("True", "AllReplicasReady") == ready(result)
        shown = result.status
        assert (3, 3, 3) == (shown.updated, shown.update_revision, shown.record.current_revision)


def test_what_came_between_gives_way_to_those_that_run() -> None:
    replicas = of_revisions(1, 1, 1, 2)
    result = plan(desired(replicas), replicas)
    assert [("chat-r4", "a newer revision takes its place")] == drained(result)
    assert [] == made(result)


def test_what_is_missing_is_made_of_the_newer_number() -> None:
    replicas = of_revisions(1, 1)
    result = plan(desired(replicas), replicas)
    assert ([], [3]) == (drained(result), made(result))
    assert 2 == result.status.updated


def test_two_numbers_of_one_template_are_not_mixed() -> None:
    """Too many replicas go by their cost, the first number no sooner than the second."""
    one, two = of_revisions(1, 3)
    two = dataclasses.replace(two, created_at=make.NOW - 450)  # the youngest goes
    result = plan(desired([one, two], wanted=1), [one, two])
    assert [("chat-r2", "fewer replicas are wanted")] == drained(result)


@pytest.mark.parametrize("hashes", [("good", "bad", "good at 12:00"), ("good", "good at 12:00")])
def test_a_restart_is_another_template(hashes: tuple[str, ...]) -> None:
    replicas = of_revisions(1, 1, 1)
    assert [len(hashes)] == made(plan(desired(replicas, hashes=hashes), replicas))


def test_other_bytes_are_another_revision() -> None:
    replicas = of_revisions(1, 1, 1)
    wanted = desired(replicas)
    first, bad, last = wanted.revisions
    moved = dataclasses.replace(wanted, revisions=(dataclasses.replace(first, pins=(PIN,)), bad, last))
    assert {} == revisions.twins(moved.revisions)
    assert 0 == plan(moved, replicas).status.updated


def test_every_number_stands_for_the_newest_that_is_the_same() -> None:
    kept = desired((), hashes=("a", "b", "a", "b", "c", "a")).revisions
    assert {1: 6, 3: 6, 2: 4} == revisions.twins(kept)


def test_a_revision_is_kept_for_as_long_as_a_replica_was_made_of_it() -> None:
    replicas = of_revisions(1)
    assert [2] == removed(plan(desired(replicas, wanted=1, revision_history_limit=0), replicas))
    replicas = of_revisions(3)
    assert [1, 2] == removed(plan(desired(replicas, wanted=1, revision_history_limit=0), replicas))


def test_crashes_of_those_that_count_as_the_newest_slow_down() -> None:
    one = make.a_replica(1)
    seen = make.observed([make.a_job(one, job.JobState.FAILED, exit_code=70)])
    record = compute.plan(desired([one], wanted=1), seen, make.names()).status.record
    assert (1, 3, make.NOW + 10) == (record.crashes, record.crash_revision, record.retry_at)


def test_health_of_those_that_count_as_the_newest_ends_a_back_off() -> None:
    one = make.a_replica(1, ready_at=make.NOW - backoff.HEALTHY_S)
    record = values.Record(crashes=2, crash_revision=3, retry_at=make.NOW - 1)
    assert 0 == plan(desired([one], wanted=1, record=record), [one]).status.record.crashes


def test_a_pause_makes_of_what_serves_under_its_newest_number() -> None:
    replicas = of_revisions(1, 1)
    assert [3] == made(plan(desired(replicas, paused=True), replicas))
    replicas = of_revisions(1, 2)
    assert [3] == made(plan(desired(replicas, paused=True), replicas))
    replicas = of_revisions(2, 3)
    assert [2] == made(plan(desired(replicas, paused=True), replicas))
