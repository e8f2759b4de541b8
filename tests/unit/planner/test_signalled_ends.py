"""An agent that was signalled knows that it was; why, Slurm knows."""

import pytest

from llmop.domain.job import JobState, ObservedJob
from llmop.domain.replica import End, EndReason
from llmop.planner import classify

TOLD = End(
    reason=EndReason.TERMINATED, at=100.0, message="by SIGTERM", exit_code=0, node="n1", log_tail=("bye",)
)


def seen(state: JobState) -> ObservedJob:
    return ObservedJob(job_id="7", name="llmop-k3v9qd-chat-x-0b6c1f2e", state=state, state_text=state.value)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (JobState.CANCELLED, EndReason.CANCELLED_BY_OTHER),
        (JobState.TIMEOUT, EndReason.WALLTIME),
        (JobState.PREEMPTED, EndReason.PREEMPTED),
        (JobState.DEADLINE, EndReason.WALLTIME),
        (JobState.COMPLETED, EndReason.TERMINATED),
    ],
)
def test_slurm_says_why_an_agent_was_terminated(state: JobState, reason: EndReason) -> None:
    end = classify.end_of(seen(state), TOLD, asked=False, now=200.0)

    assert (reason, 100.0, "n1", ("bye",)) == (end.reason, end.at, end.node, end.log_tail)


def test_a_termination_that_was_asked_for_stays_one() -> None:
    assert TOLD == classify.end_of(seen(JobState.CANCELLED), TOLD, asked=True, now=200.0)


def test_what_the_agent_knows_better_is_believed() -> None:
    crash = End(reason=EndReason.ENGINE_CRASHED, at=100.0, exit_code=70, node="n1")

    assert crash == classify.end_of(seen(JobState.CANCELLED), crash, asked=False, now=200.0)
