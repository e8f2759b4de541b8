"""A paused deployment: nobody is replaced, scaling goes on, and what is made is of the revision that serves."""

import dataclasses

import pytest
from tests.unit.planner.test_rollout import _read

from llmop.domain import job, replica
from llmop.planner import compute, rollout, values
from llmop.testing import builders as make


@pytest.mark.parametrize(
    ("frame", "replicas", "surge", "create", "drained"),
    [
        ("O O", 2, 1, 0, ""),
        ("O O n", 2, 1, 0, ""),  # a rollout in its middle stays as it is
        ("O N N", 2, 1, 0, ""),
        ("O O N N", 2, 1, 0, "N"),  # too many even for a rollout: the newer goes first
        ("O O n", 1, 1, 0, "n"),
        ("O O", 3, 1, 1, ""),
        ("O O", 1, 1, 0, "O"),
        ("O o", 1, 1, 0, "o"),
        ("O-", 1, 0, 0, ""),  # one that drains still holds its place
        ("O-", 1, 1, 1, ""),
        ("", 2, 1, 2, ""),
        ("O O", 0, 1, 0, "O O"),
        ("O N", 0, 1, 0, "N"),  # then two are one revision, and the last one goes too
    ],
)
def test_a_pause_keeps_what_there_is_and_scales(
    frame: str, replicas: int, surge: int, create: int, drained: str
) -> None:
    known = _read(frame)
    letters = {each.facts.uid: word for each, word in zip(known, frame.split(), strict=True)}
    bounds = rollout.Bounds(replicas=replicas, max_surge=surge, max_unavailable=0)
    step = rollout.paused_step(known, 1, bounds, make.NOW)
    assert (create, drained) == (step.create, " ".join(letters[each.facts.uid] for each in step.drain))


def test_one_whose_agent_is_silent_is_replaced_in_a_pause_too() -> None:
    known = [dataclasses.replace(each, is_replaced=True) for each in _read("O")]
    step = rollout.paused_step(known, 1, rollout.Bounds(replicas=1, max_surge=1, max_unavailable=0), make.NOW)
    assert (1, known) == (step.create, list(step.drain))


def plan(desired: values.Desired, replicas: list[replica.Replica]) -> values.Plan:
    seen = make.observed(
        [make.a_job(each) for each in replicas], [make.a_heartbeat(each) for each in replicas]
    )
    return compute.plan(desired, seen, make.names())


def wanting(desired: values.Desired, replicas: int) -> values.Desired:
    owner = desired.deployment
    owner = dataclasses.replace(owner, spec=dataclasses.replace(owner.spec, replicas=replicas))
    return dataclasses.replace(desired, deployment=owner)


def made(result: values.Plan) -> list[int]:
    return [action.replica.revision for action in result.actions if isinstance(action, values.CreateReplica)]


def names(result: values.Plan) -> set[str]:
    return {type(action).__name__ for action in result.actions}


def condition(result: values.Plan, kind: str) -> tuple[str, str, str]:
    (found,) = [each for each in result.status.record.conditions if each.type == kind]
    return str(found.status), found.reason, found.message


def test_a_changed_template_waits() -> None:
    one = make.a_replica(1)
    desired = make.desired([one], paused=True, template_hash="another")
    result = plan(desired, [one])
    assert set() == names(result) - {"Announce"}
    paused = "the deployment is paused: replicas are not replaced"
    assert ("Unknown", "DeploymentPaused", paused) == condition(result, "Progressing")
    assert ("False", "DeploymentPaused", paused) == condition(result, "Ready")
    resumed = make.desired([one], template_hash="another")
    assert {"CreateRevision", "CreateReplica"} <= names(plan(resumed, [one]))


def test_a_pause_without_a_change_is_ready() -> None:
    one = make.a_replica(1)
    result = plan(make.desired([one], paused=True), [one])
    assert ("True", "AllReplicasReady", "") == condition(result, "Ready")


def test_what_is_missing_is_made_of_the_oldest_revision_that_runs() -> None:
    old, new = make.a_replica(1, revision=1), make.a_replica(2, revision=2)
    result = plan(wanting(make.desired([old, new], revision=2, paused=True), 3), [old, new])
    assert [1] == made(result)
    assert 1 == result.status.record.current_revision


def test_the_revision_that_served_last_is_made_when_nothing_runs() -> None:
    """Also when every replica was lost at once: the new revision does not sneak in."""
    record = values.Record(current_revision=1)
    assert [1] == made(plan(make.desired(revision=2, record=record, paused=True), []))
    gone = values.Record(current_revision=7)
    assert [2] == made(plan(make.desired(revision=2, record=gone, paused=True), []))


def test_a_deployment_that_is_paused_from_the_start_makes_nothing() -> None:
    result = plan(make.desired(revision=0, template_hash="first", paused=True), [])
    assert set() == names(result)
    assert (0, 0) == (result.status.record.current_revision, result.status.update_revision)
    assert "0 of 1 replicas are available; the deployment is paused" in condition(result, "Ready")[2]


def test_the_revision_that_is_made_of_is_kept() -> None:
    record = values.Record(current_revision=1)
    result = plan(make.desired(revision=3, record=record, paused=True, revision_history_limit=0), [])
    removed = {
        action.revision.number for action in result.actions if isinstance(action, values.RemoveRevision)
    }
    assert {2} == removed


def test_a_crash_of_the_older_revision_slows_down_in_a_pause() -> None:
    one = make.a_replica(1)
    desired = make.desired([one], revision=2, paused=True)
    failed = make.a_job(one, job.JobState.FAILED, exit_code=70)
    result = compute.plan(desired, make.observed([failed]), make.names())
    assert (1, make.NOW + 10) == (result.status.record.crashes, result.status.record.retry_at)
    assert [] == made(result)


def test_a_paused_deployment_that_is_deleted_goes() -> None:
    one = make.a_replica(1)
    assert "StartDrain" in names(plan(make.desired([one], paused=True, deleted_at=make.NOW), [one]))


def test_a_scaled_down_pause_says_so() -> None:
    one, two = make.a_replica(1), make.a_replica(2, revision=2)
    result = plan(wanting(make.desired([one, two], revision=2, paused=True), 0), [one, two])
    (drained,) = [action for action in result.actions if isinstance(action, values.StartDrain)]
    assert ("chat-r2", "fewer replicas are wanted") == (drained.replica.name, drained.why)
