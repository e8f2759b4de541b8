"""Replicas are made when everything that they need is there, and people are told until then."""

import dataclasses
from typing import Any

import pytest

from llmop.domain import job, staging
from llmop.domain.staging import Progress, Step, View
from llmop.planner import artifacts, compute, values
from llmop.testing import builders as make

IMAGE, MODEL = "docker://ghcr.io/team/engine:1.0", "hf://team/model@main"
IMAGE_DIGEST, COMMIT = f"sha256:{'a' * 64}", "b" * 40
PINS = (
    staging.Pin(reference=IMAGE, digest=IMAGE_DIGEST),
    staging.Pin(reference=MODEL, digest=COMMIT),
)
READY = Progress(step=Step.READY)
ALL_READY = {IMAGE: View(digest=IMAGE_DIGEST, progress=READY), MODEL: View(digest=COMMIT, progress=READY)}


def desired(*pins: staging.Pin, replicas: Any = (), **changes: Any) -> values.Desired:
    """The newest revision needs an image and weights."""
    template = make.template(image=IMAGE, model_uri="hf://team/model", env_files=("hf.env",))
    base = make.desired(replicas, template=template, **changes)
    newest = dataclasses.replace(base.revisions[-1], template=template, pins=pins)
    runtime = dataclasses.replace(make.engine(), container="optional")
    return dataclasses.replace(base, revisions=(*base.revisions[:-1], newest), runtime=runtime)


def planned(wanted: values.Desired, **views: View) -> values.Plan:
    names = {"image": IMAGE, "model": MODEL}
    seen = make.observed(artifacts={names[name]: view for name, view in views.items()})
    return compute.plan(wanted, seen, make.names())


def condition(plan: values.Plan, kind: str = "ArtifactsReady") -> tuple[str, str, str]:
    (found,) = [each for each in plan.status.record.conditions if each.type == kind]
    return str(found.status), found.reason, found.message


def of(plan: values.Plan, kind: type[Any]) -> list[Any]:
    return [action for action in plan.actions if isinstance(action, kind)]


def test_paths_need_no_staging() -> None:
    plan = compute.plan(make.desired(), make.observed(), make.names())

    assert ("True", "LocalPaths", "") == condition(plan)
    assert 1 == len(of(plan, values.CreateReplica))


def test_first_it_is_asked_what_the_references_are() -> None:
    plan = planned(desired())

    asked = [(each.reference.text, each.digest, each.secret_files) for each in of(plan, values.StageArtifact)]
    assert [(IMAGE, "", ("hf.env",)), (MODEL, "", ("hf.env",))] == asked
    assert [] == of(plan, values.CreateReplica)
    plan = planned(desired(), image=View(progress=Progress(step=Step.RESOLVING)), model=View())
    assert ("Unknown", "NotLookedYet") == condition(plan)[:2]


def test_then_the_revision_remembers_it_and_it_is_staged() -> None:
    resolved = View(digest=COMMIT, progress=Progress(step=Step.RESOLVING))
    plan = planned(desired(PINS[0]), image=ALL_READY[IMAGE], model=resolved)

    (pinned,) = of(plan, values.PinArtifacts)
    assert PINS == pinned.pins
    assert [(MODEL, COMMIT)] == [
        (each.reference.text, each.digest) for each in of(plan, values.StageArtifact)
    ]
    assert [] == of(plan, values.CreateReplica)


def test_nothing_is_pinned_to_a_revision_that_is_not_stored_yet() -> None:
    new = dataclasses.replace(desired(), template_hash="another")
    plan = planned(new, image=ALL_READY[IMAGE], model=ALL_READY[MODEL])

    assert ["CreateRevision", "StageArtifact", "StageArtifact"] == [
        type(action).__name__ for action in plan.actions
    ]


def test_then_replicas_are_made() -> None:
    plan = planned(desired(*PINS), image=ALL_READY[IMAGE], model=ALL_READY[MODEL])

    assert ("True", "Staged", "") == condition(plan)
    assert 1 == len(of(plan, values.CreateReplica))
    assert [] == of(plan, values.StageArtifact)


def test_what_is_there_but_not_pinned_is_not_enough() -> None:
    """The pin must be stored before the first replica: the next one has to run the same."""
    plan = planned(desired(PINS[0]), image=ALL_READY[IMAGE], model=ALL_READY[MODEL])

    assert [] == of(plan, values.CreateReplica)


def test_the_same_template_again_means_the_same_bytes_again() -> None:
    old = desired(*PINS, revision=1)
    other = dataclasses.replace(old.revisions[0], number=2, hash="other", uid="rev-2", pins=())
    undone = dataclasses.replace(old, revisions=(old.revisions[0], other))

    (made,) = of(planned(undone), values.CreateRevision)
    assert (3, PINS) == (made.revision.number, made.revision.pins)


def test_progress_is_told_in_steps() -> None:
    words = []
    for percent in range(101):
        at = Progress(step=Step.DOWNLOADING, done=percent * 10_000_000, total=1_000_000_000)
        plan = planned(desired(*PINS), image=ALL_READY[IMAGE], model=View(digest=COMMIT, progress=at))
        assert condition(plan)[:2] == ("False", "Downloading")
        words.append(condition(plan)[2])
    assert [f"{MODEL}: {percent} % of 1.0 GB" for percent in range(0, 101, 10)] == sorted(
        set(words), key=words.index
    )
    assert condition(plan) == condition(plan, "Ready")
    assert ("True", "Downloading") == condition(plan, "Progressing")[:2]


@pytest.mark.parametrize("step", [step for step in Step if step not in (Step.READY, Step.FAILED)])
def test_every_step_has_words(step: Step) -> None:
    assert "x" in artifacts.words("x", Progress(step=step))


@pytest.mark.parametrize("needs_user", [True, False])
def test_a_failure_is_told_in_its_own_words_and_looked_at_when_it_is_tried_again(needs_user: bool) -> None:
    failed = Progress(
        step=Step.FAILED, reason="Why", message="because", needs_user=needs_user, retry_at=make.NOW + 9
    )
    on_its_way = View(digest=IMAGE_DIGEST, progress=Progress(step=Step.DOWNLOADING))
    plan = planned(desired(*PINS), image=on_its_way, model=View(digest=COMMIT, progress=failed))

    assert ("False", "Why", "because") == condition(plan) == condition(plan, "Ready")
    assert (("True", "Why", "because") if needs_user else ("False", "NotStalled", "")) == condition(
        plan, "Stalled"
    )
    assert make.NOW + 9 == plan.recheck_at
    assert [MODEL, IMAGE] == sorted(
        (each.reference.text for each in of(plan, values.StageArtifact)), reverse=True
    )


def test_replicas_of_the_revision_before_stay_as_they_are_until_then() -> None:
    """Also those that may be missing during a rollout, and a job that waits in the queue: staging can take an hour."""
    serving, waiting = make.a_replica(1), make.a_replica(2, ready_at=None, started_at=None, was_running=False)
    seen = make.observed(
        [make.a_job(serving), make.a_job(waiting, job.JobState.PENDING)], [make.a_heartbeat(serving)]
    )

    def drained(count: int) -> list[str]:
        base = desired(replicas=[serving, waiting], revision=2, max_unavailable=1)
        spec = dataclasses.replace(base.deployment.spec, replicas=count)
        wanted = dataclasses.replace(base, deployment=dataclasses.replace(base.deployment, spec=spec))
        plan = compute.plan(wanted, seen, make.names())
        return [each.replica.uid for each in of(plan, values.StartDrain)]

    assert [] == drained(2)
    assert [waiting.uid] == drained(1)


def test_what_goes_or_cannot_run_stages_nothing() -> None:
    assert [] == of(planned(desired(deleted_at=make.NOW)), values.StageArtifact)
    assert [] == of(planned(desired(problems=("no",))), values.StageArtifact)


def test_what_was_purged_is_staged_again_the_same() -> None:
    away = View(digest=COMMIT, progress=Progress(step=Step.DOWNLOADING))
    plan = planned(desired(*PINS), image=ALL_READY[IMAGE], model=away)

    assert [(MODEL, COMMIT)] == [
        (each.reference.text, each.digest) for each in of(plan, values.StageArtifact)
    ]
    assert [] == of(plan, values.CreateReplica) == of(plan, values.PinArtifacts)
