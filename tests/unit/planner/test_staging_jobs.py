"""What follows from what is known of a job that stages an artifact."""

import dataclasses
from typing import Any

import pytest

from llmop.domain import fences, ids, job, site
from llmop.domain.errors import NeedsUser, Unavailable
from llmop.planner import orphans, values
from llmop.planner import staging_jobs as decisions
from llmop.testing import builders as make

NAME = ids.staging_name(make.INSTALLATION, "12345678")
WHERE = make.where(submit_timeout_s=180.0, settle_s=60.0)
NOTE = decisions.Note(name=NAME, attempt_at=make.NOW)


def a_job(job_id: str = "7", state: job.JobState = job.JobState.RUNNING, **changes: Any) -> job.ObservedJob:
    base = job.ObservedJob(
        job_id=job_id, name=NAME, state=state, state_text=state.value, node="n1", submitted_at=make.NOW
    )
    return dataclasses.replace(base, **changes)


def view(*jobs: job.ObservedJob, at: float = make.NOW, **changes: Any) -> values.ClusterView:
    base = values.ClusterView(
        site=WHERE, snapshot_started_at=at, snapshot_taken_at=at, jobs={NAME: jobs} if jobs else {}
    )
    return dataclasses.replace(base, **changes)


PENDING, RUNNING, OVER = job.JobState.PENDING, job.JobState.RUNNING, job.JobState.FAILED
SUBMITTED = dataclasses.replace(NOTE, job_id="7", known_at=make.NOW + 1)
NO_SINGLETON = fences.Fences(identity=fences.Identity.NAME, singleton=False)
NO_IDENTITY = fences.Fences(identity=fences.Identity.NOTHING, singleton=False)


@pytest.mark.parametrize(
    ("note", "seen", "decided"),
    [
        (None, view(), decisions.Submit()),
        (None, view(unproven="wait"), decisions.Wait(why="wait")),
        (None, view(problem="squeue: no answer"), decisions.Wait(why="squeue: no answer")),
        (None, view(brake="mass vanish"), decisions.Wait(why="mass vanish")),
        (SUBMITTED, view(problem="squeue: no answer"), decisions.Wait()),
        # Nobody knows what came of sbatch: it may try for 180 s and land within 60 s more.
        (NOTE, view(at=make.NOW + 239), decisions.Wait(why="its submission may still land")),
        (NOTE, view(at=make.NOW + 240), decisions.Submit()),
        (dataclasses.replace(NOTE, unknown_at=make.NOW + 20), view(at=make.NOW + 80), decisions.Submit()),
        (
            NOTE,
            view(at=make.NOW + 240, fences=NO_SINGLETON),
            decisions.Wait(why="its submission may still land"),
        ),
        (NOTE, view(at=make.NOW + 360, fences=NO_SINGLETON), decisions.Submit()),
        # Somebody has set the clock back.
        (dataclasses.replace(NOTE, attempt_at=make.NOW + 90_000), view(), decisions.Submit()),
        (NOTE, view(a_job()), decisions.Follow(job=a_job())),
        (SUBMITTED, view(a_job(state=PENDING)), decisions.Follow(job=a_job(state=PENDING))),
        (SUBMITTED, view(at=make.NOW), decisions.Wait()),
        (SUBMITTED, view(at=make.NOW + 2), decisions.Over(job=None)),
        (SUBMITTED, view(a_job(state=OVER)), decisions.Over(job=a_job(state=OVER))),
        (
            SUBMITTED,
            view(a_job("7", PENDING), a_job("8"), a_job("5", job.JobState.COMPLETING), a_job("4", OVER)),
            decisions.Follow(job=a_job("5", job.JobState.COMPLETING), twins=("8", "7")),
        ),
    ],
)
def test_one_job_whatever_is_known_of_it(
    note: decisions.Note | None, seen: values.ClusterView, decided: decisions.Decision
) -> None:
    assert decided == decisions.decide(note, seen, make.NOW + 100)


def test_where_jobs_cannot_be_found_again_none_is_made() -> None:
    decided = decisions.decide(None, view(fences=NO_IDENTITY), make.NOW)
    assert isinstance(decided, decisions.Wait)
    assert "submits none" in decided.why


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (a_job(), ""),
        (a_job(state=job.JobState.COMPLETING), ""),
        (
            a_job(state=PENDING, reason="Resources", explanation="All are busy."),
            "job 7: Resources: All are busy.",
        ),
        (a_job(state=job.JobState.HELD), "job 7: HELD"),
    ],
)
def test_why_a_job_waits_is_told(seen: job.ObservedJob, words: str) -> None:
    assert words == decisions.waiting(seen)


@pytest.mark.parametrize(
    ("seen", "last", "kind", "words"),
    [
        (None, "", Unavailable, "left the queue without a result"),
        (
            a_job(state=OVER, exit_code=126),
            "",
            NeedsUser,
            "on n1, found no /py; set spec.staging.python of the Cluster main",
        ),
        (a_job(state=OVER, exit_code=1), "/py: No module named llmop", NeedsUser, "found no llmop for /py"),
        (a_job(state=OVER, exit_code=1), "No module named 'numpy'", Unavailable, "ended with code 1"),
        (
            a_job(state=job.JobState.TIMEOUT),
            "",
            Unavailable,
            "reached its time limit; another one goes on where it was",
        ),
        (a_job(state=job.JobState.OUT_OF_MEMORY), "", NeedsUser, "raise spec.staging.memory"),
        (a_job(state=job.JobState.CANCELLED), "", Unavailable, "was cancelled, and not by llmop"),
        (a_job(state=job.JobState.PREEMPTED), "", Unavailable, "PREEMPTED"),
        (a_job(state=job.JobState.NODE_FAIL, node=""), "", Unavailable, "on no node, ended with NODE_FAIL"),
        (a_job(state=OVER, exit_code=9), "Killed", Unavailable, "ended with code 9 without a result: Killed"),
    ],
)
def test_an_end_without_a_result_is_explained(
    seen: job.ObservedJob | None, last: str, kind: type[Exception], words: str
) -> None:
    error = decisions.end("hf://team/model@main", seen, last, make.where(name="main"), "/py")
    assert isinstance(error, kind)
    assert words in str(error)
    assert "job 7" not in str(error)


def test_what_a_stager_said_keeps_its_kind_and_gets_its_node() -> None:
    needs = decisions.told(NeedsUser("NoSpace", "full"), a_job())
    assert ("NoSpace", "full (on n1)") == (getattr(needs, "reason", ""), str(needs))
    assert "away" == str(decisions.told(Unavailable("away"), None))


def test_jobs_that_stage_are_no_orphans() -> None:
    found = orphans.find(
        (a_job(),), make.INSTALLATION, {}, frozenset(), site.OrphanPolicy.CANCEL, 0.0, make.NOW, {}
    )
    assert orphans.Orphans() == found
