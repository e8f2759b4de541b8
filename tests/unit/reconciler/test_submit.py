"""The rate of submissions, and what is written down after one."""

import pytest
from tests.unit.reconciler.reconciler_rig import CHAT, Rig

from llmop.domain import job, replica
from llmop.reconciler import submit
from llmop.testing import builders as make

_State = replica.SubmissionState


def test_a_burst_is_taken_at_once_and_then_the_rate_rules() -> None:
    bucket = submit.TokenBucket(rate=2.0, burst=3, now=0.0)
    assert [0.0, 0.0, 0.0, 0.5] == [bucket.take(0.0) for _ in range(4)]
    assert [0.0, 0.5] == [bucket.take(0.5), bucket.take(0.5)]


def test_an_idle_bucket_fills_up_to_its_burst_only() -> None:
    bucket = submit.TokenBucket(rate=1.0, burst=2, now=0.0)
    assert [0.0, 0.0, 1.0] == [bucket.take(1000.0) for _ in range(3)]


def test_refusals_are_tried_again_later_and_later() -> None:
    assert [15, 15, 30, 60, 600] == [submit.refused_delay_s(count) for count in (0, 1, 2, 3, 20)]


@pytest.mark.parametrize(
    ("outcome", "state", "job_id", "attempt_at"),
    [
        (job.Submitted(job_id="7"), _State.SUBMITTED, "7", 5.0),
        (
            job.Rejected(reject_class=job.RejectClass.INVALID_QOS, message="no"),
            _State.REJECTED,
            None,
            5.0,
        ),
        (job.Refused(message="later"), _State.SUBMITTING, None, None),
        (job.SubmitUnknown(message="?"), _State.UNKNOWN, None, 5.0),
    ],
)
def test_after_an_sbatch(
    outcome: job.SubmitOutcome, state: _State, job_id: str | None, attempt_at: float | None
) -> None:
    begun = make.submission(
        "r", make.uid_of(1), state=_State.SUBMITTING, job_id=None, attempt_at=5.0, resolved_at=None
    )
    after = submit.after(begun, outcome, make.NOW)
    assert (state, job_id, attempt_at) == (after.state, after.job_id, after.attempt_at)


async def test_the_lock_of_a_key_lasts_as_long_as_somebody_holds_it() -> None:
    rig = Rig()
    await rig.start(replicas=1)
    await rig.poll()
    await rig.settle()
    assert not rig.reconciler._locks
    async with rig.reconciler._lock(CHAT):
        assert rig.reconciler._lock(CHAT).locked()
    assert not rig.reconciler._locks
