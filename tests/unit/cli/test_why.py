"""Why things are as they are, word for word; the files are in tests/golden/why.

The objects come out of the planner, which gets to see what is wrong: no status here was made up.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmop.cli import causes
from llmop.domain import job, replica, times
from llmop.planner import compute, values
from llmop.reconciler import codec
from llmop.testing import builders as make

GOLDEN = Path(__file__).parents[2] / "golden" / "why"
LATER = 5.0  # seconds from the pass to the question
OOM = ("loading shards: 100%", "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")


def deployment(plan: values.Plan, desired: values.Desired, **metadata: Any) -> dict[str, Any]:
    owner = desired.deployment
    document: dict[str, Any] = {
        "metadata": {"name": owner.name, "generation": owner.generation, **metadata},
        "spec": {"replicas": owner.spec.replicas},
        "status": codec.deployment_status(plan.status, owner.generation, ""),
    }
    if owner.deleted_at is not None:
        document["metadata"]["deletionTime"] = times.to_rfc3339(owner.deleted_at)
    return document


def replicas(plan: values.Plan) -> tuple[dict[str, Any], ...]:
    ends = {each.replica.uid: each.end for each in plan.actions if isinstance(each, values.RecordEnd)}
    drains = {each.replica.uid: each.drain for each in plan.actions if isinstance(each, values.StartDrain)}
    found = []
    for shown in plan.replicas:
        facts = shown.replica
        drain = drains.get(facts.uid, facts.drain)
        found.append(
            {
                "metadata": {"name": facts.name, "creationTime": times.to_rfc3339(facts.created_at)},
                "spec": {
                    "deployment": facts.deployment,
                    "revision": facts.revision,
                    "cluster": facts.cluster,
                    "drain": codec.drain_json(drain) if drain else None,
                },
                "status": codec.replica_status(shown, ends.get(facts.uid)),
            }
        )
    return tuple(found)


def events(plan: values.Plan) -> tuple[causes.Happening, ...]:
    return tuple(
        causes.Happening(
            at=make.NOW,
            count=1,
            about=f"replica/{each.regarding.name}",
            is_warning=each.warning,
            reason=each.reason,
            message=each.message,
        )
        for each in plan.actions
        if isinstance(each, values.Announce)
    )


def cluster(**conditions: Sequence[str]) -> dict[str, Any]:
    return {
        "metadata": {"name": make.CLUSTER},
        "status": {
            "conditions": [
                {
                    "type": kind,
                    "status": words[0],
                    "reason": words[1],
                    "message": words[2],
                    "lastTransitionTime": times.to_rfc3339(make.NOW - 100),
                }
                for kind, words in conditions.items()
            ]
        },
    }


def situation(
    desired: values.Desired, seen: values.Observed | None = None, *, focus: str = "", **changes: Any
) -> causes.Situation:
    plan = compute.plan(desired, seen or make.observed(), make.names())
    base = causes.Situation(
        now=make.NOW + LATER,
        deployment=deployment(plan, desired),
        replicas=replicas(plan),
        cluster=cluster(Reachable=("True", "Answers", "")),
        events=events(plan),
        focus=focus,
    )
    return dataclasses.replace(base, **changes)


def wanting(desired: values.Desired, count: int) -> values.Desired:
    owner = desired.deployment
    owner = dataclasses.replace(owner, spec=dataclasses.replace(owner.spec, replicas=count))
    return dataclasses.replace(desired, deployment=owner)


def young(number: int, **changes: Any) -> replica.Replica:
    """A replica that has not been ready yet."""
    fields = {"ready_at": None, "host": "", "port": 0, "phase": None, **changes}
    return make.a_replica(number, **fields)


def waiting(reason: str, pending: job.PendingClass, sentence: str, **changes: Any) -> causes.Situation:
    """One replica of two serves, the other waits in the queue."""
    one, two = make.a_replica(1), young(2, started_at=None, node="", was_running=False)
    queued = make.a_job(
        two,
        job.JobState.PENDING,
        reason=reason,
        explanation=sentence,
        pending=pending,
        **changes,
    )
    desired = wanting(make.desired([one, two]), 2)
    return situation(desired, make.observed([make.a_job(one), queued], [make.a_heartbeat(one)]))


def ended(reason: replica.EndReason, message: str, *, crashes: int = 0, **end: Any) -> causes.Situation:
    """The only replica has ended, and its agent has said how."""
    one = young(1)
    record = replica.End(reason=reason, at=make.NOW - 20, message=message, node="n1", **end)
    before = values.Record(crashes=crashes, crash_revision=1) if crashes else values.Record()
    seen = make.observed([make.a_job(one, job.JobState.FAILED, exit_code=70)], exits={one.uid: record})
    return situation(make.desired([one], record=before), seen)


def _serving(count: int = 2) -> causes.Situation:
    all_ = [make.a_replica(number) for number in range(1, count + 1)]
    seen = make.observed([make.a_job(each) for each in all_], [make.a_heartbeat(each) for each in all_])
    return situation(wanting(make.desired(all_), count), seen)


def _blocked_for_long() -> causes.Situation:
    one = young(1, started_at=None, node="", was_running=False, blocked_since=make.NOW - 300)
    queued = make.a_job(
        one,
        job.JobState.PENDING,
        reason="PartitionTimeLimit",
        explanation="The time limit is longer than the partition allows.",
        pending=job.PendingClass.NEVER,
    )
    return situation(make.desired([one]), make.observed([queued]))


def _never_ran() -> causes.Situation:
    """The job that could never run was cancelled."""
    drain = replica.Drain(
        reason=replica.DrainReason.NEVER_RUNS, requested_at=make.NOW - 60, deadline_at=make.NOW + 60
    )
    one = young(1, started_at=None, node="", was_running=False, drain=drain)
    cancelled = make.a_job(one, job.JobState.CANCELLED)
    return situation(make.desired([one]), make.observed([cancelled]))


def _rejected() -> causes.Situation:
    rejected = {
        "state": replica.SubmissionState.REJECTED,
        "job_id": None,
        "message": "Invalid qos specification",
    }
    one = young(1, submission_changes=rejected, started_at=None, node="")
    return situation(make.desired([one]))


def _loading(**changes: Any) -> causes.Situation:
    one = young(1, **changes)
    beat = make.a_heartbeat(one, replica.AgentPhase.LOADING, detail="/health answers 503")
    seen = make.observed([make.a_job(one, started_at=one.started_at)], [beat])
    return situation(make.desired([one]), seen)


def _rollout() -> causes.Situation:
    old, new = make.a_replica(1), young(2, revision=2)
    seen = make.observed(
        [make.a_job(old), make.a_job(new)],
        [make.a_heartbeat(old), make.a_heartbeat(new, replica.AgentPhase.LOADING)],
    )
    return situation(make.desired([old, new], revision=2), seen)


def _recovered() -> causes.Situation:
    """What went wrong was the template before this one."""
    one, bad = make.a_replica(1, revision=2), young(2)
    record = replica.End(
        reason=replica.EndReason.ENGINE_CRASHED, at=make.NOW - 20, message="it crashed", node="n1"
    )
    seen = make.observed(
        [make.a_job(one), make.a_job(bad, job.JobState.FAILED)],
        [make.a_heartbeat(one)],
        exits={bad.uid: record},
    )
    return situation(make.desired([one, bad], revision=2), seen)


def _paused() -> causes.Situation:
    one = make.a_replica(1)
    seen = make.observed([make.a_job(one)], [make.a_heartbeat(one)])
    return situation(make.desired([one], paused=True, template_hash="another"), seen)


def _deleting() -> causes.Situation:
    one = make.a_replica(1)
    seen = make.observed([make.a_job(one)], [make.a_heartbeat(one)])
    return situation(make.desired([one], deleted_at=make.NOW - 30), seen)


def _unobserved() -> causes.Situation:
    found = _serving()
    assert found.deployment is not None
    metadata = {**found.deployment["metadata"], "generation": 2}
    return dataclasses.replace(found, deployment={**found.deployment, "metadata": metadata})


def _silent(seconds: float) -> causes.Situation:
    one = make.a_replica(1)
    beat = make.a_heartbeat(one, received_at=make.NOW - seconds)
    return situation(make.desired([one]), make.observed([make.a_job(one)], [beat]))


def _budget() -> causes.Situation:
    record = values.Record(
        budget_since=make.NOW - 1000,
        budget_spent=99,
        last_failure=values.Failure(
            reason="StartupTimeout",
            message="the engine was not ready in time",
            at=make.NOW - 60,
            node="n7",
            log_tail=("still compiling kernels",),
        ),
    )
    return situation(make.desired(record=record))


def _many() -> causes.Situation:
    """Seven wait for the same thing."""
    all_ = [young(number, started_at=None, node="", was_running=False) for number in range(1, 8)]
    queued = [
        make.a_job(
            each,
            job.JobState.PENDING,
            reason="Priority",
            explanation="Jobs of higher priority wait before it.",
            pending=job.PendingClass.NORMAL,
        )
        for each in all_
    ]
    return situation(wanting(make.desired(all_), 7), make.observed(queued))


SITUATIONS: Mapping[str, Any] = {
    "serving": _serving,
    "scaled-to-zero": lambda: situation(wanting(make.desired(), 0)),
    "not-looked-at-yet": _unobserved,
    "being-deleted": _deleting,
    "waits-for-resources": lambda: waiting(
        "Resources",
        job.PendingClass.NORMAL,
        "It waits for resources to become free.",
        started_at=make.NOW + 3600,
    ),
    "waits-for-a-qos": lambda: waiting(
        "QOSGrpGRES",
        job.PendingClass.QUOTA,
        "All jobs of the QOS use as much as they may at the same time.",
    ),
    "held-by-an-administrator": lambda: waiting(
        "JobHeldAdmin", job.PendingClass.HELD_BY_ADMIN, "An administrator holds the job."
    ),
    "never-runs": _blocked_for_long,
    "never-ran": _never_ran,
    "many-wait": _many,
    "crashed-for-want-of-memory": lambda: ended(
        replica.EndReason.ENGINE_CRASHED, "the engine ended with exit code 1", exit_code=1, log_tail=OOM
    ),
    "crash-loop": lambda: ended(
        replica.EndReason.ENGINE_CRASHED,
        "the engine ended with exit code 2",
        crashes=4,
        exit_code=2,
        log_tail=("error: unrecognized arguments: --max-modellen",),
    ),
    "model-is-missing": lambda: ended(
        replica.EndReason.MISSING_ARTIFACT, "/models/llama.gguf is not there", exit_code=78
    ),
    "node-is-unusable": lambda: ended(
        replica.EndReason.NODE_UNUSABLE, "no GPU is visible: nvidia-smi found none", exit_code=69
    ),
    "rejected-by-sbatch": _rejected,
    "submission-budget-spent": _budget,
    "cluster-does-not-answer": lambda: situation(
        make.desired(),
        make.observed(view=make.a_view(problem="squeue: Unable to contact slurm controller")),
        cluster=cluster(Reachable=("False", "NotAnswering", "squeue: Unable to contact slurm controller")),
    ),
    "jobs-vanish": lambda: situation(
        make.desired([make.a_replica(1)]),
        make.observed(view=make.a_view(brake="3 of 4 jobs vanished at once")),
    ),
    "loading": _loading,
    "progress-deadline-exceeded": lambda: _loading(started_at=make.NOW - 4000),
    "rollout-in-its-middle": _rollout,
    "recovered-from-another-template": _recovered,
    "paused": _paused,
    "agent-is-late": lambda: _silent(20),
    "agent-is-silent": lambda: _silent(60),
    "reference-to-nothing": lambda: situation(
        make.desired(problems=('spec.runtime: there is no ServingRuntime "toyy"; did you mean "toy"?',))
    ),
    "name-is-taken": lambda: situation(
        make.desired(name_conflict='the model name "chat" is held by lab/chat: set another spec.model.name')
    ),
    "replica-serves": lambda: dataclasses.replace(_serving(1), focus="chat-r1"),
    "replica-waits": lambda: dataclasses.replace(
        waiting(
            "Priority",
            job.PendingClass.NORMAL,
            "Jobs of higher priority wait before it.",
            started_at=make.NOW + 900,
        ),
        focus="chat-r2",
    ),
    "replica-loads": lambda: dataclasses.replace(_loading(), focus="chat-r1"),
    "replica-ended": lambda: dataclasses.replace(
        ended(
            replica.EndReason.ENGINE_CRASHED, "the engine ended with exit code 1", exit_code=1, log_tail=OOM
        ),
        focus="chat-r1",
    ),
    "replica-drains": lambda: dataclasses.replace(_deleting(), focus="chat-r1"),
    "replica-is-gone": lambda: causes.Situation(
        now=make.NOW,
        focus="chat-r9",
        events=(
            causes.Happening(
                at=make.NOW - 90,
                count=1,
                about="replica/chat-r9",
                is_warning=True,
                reason="Preempted",
                message="the job was preempted",
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_answer_to_why(name: str) -> None:
    found = SITUATIONS[name]()
    text = "\n".join(causes.lines(causes.explain(found), found.now)) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


def test_every_phase_and_every_reason_to_end_has_its_words() -> None:
    assert {str(phase) for phase in replica.Phase} == set(causes.PHASES)
    assert {str(reason) for reason in replica.DrainReason} == set(causes.DRAINS)


def test_no_golden_file_is_left_over() -> None:
    assert set(SITUATIONS) == {path.stem for path in GOLDEN.glob("*.txt")}


def test_every_reason_that_a_replica_can_end_for_has_advice() -> None:
    from llmop.cli import advice
    from llmop.planner import classify

    quiet = {str(reason) for reason in classify.QUIET}
    loud = {str(reason) for reason in replica.EndReason} - quiet
    assert set() == loud - set(advice.OF_ENDS)
    assert set() == set(advice.OF_ENDS) - loud - {"WalltimeReached"}
