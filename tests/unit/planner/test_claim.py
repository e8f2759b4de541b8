"""Who is the replica? Every case of the claim."""

import pytest

from llmop.domain import replica
from llmop.planner import claim
from llmop.testing import builders as make

_State = replica.SubmissionState
_RUN, _NO = claim.Verdict.RUN, claim.Verdict.SUPERSEDED


def _ask(**given: object) -> claim.Decision:
    changes = {"job_id": "7", "claimed_restart": None, **given.pop("submission", {})}  # type: ignore[dict-item]
    asked = {
        "is_tombstone": False,
        "job_id": "7",
        "restart_count": 0,
        "holds_link": True,
        "holder_is_over": False,
        "is_draining": False,
        "now": make.NOW,
    }
    return claim.decide(make.submission("r", make.uid_of(1), **changes), **{**asked, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "verdict", "take_over"),
    [
        ({}, _RUN, False),
        ({"submission": {"state": _State.UNKNOWN, "job_id": None}}, _RUN, False),
        ({"job_id": "8"}, _RUN, False),
        ({"job_id": "8", "submission": {"claimed_restart": 0}}, _NO, False),
        ({"holds_link": False}, _NO, False),
        ({"holds_link": False, "holder_is_over": True}, _RUN, True),
        ({"is_tombstone": True}, _NO, False),
        ({"submission": {"state": _State.ENDED}}, _NO, False),
        ({"submission": {"state": _State.REJECTED}}, _NO, False),
        ({"submission": {"claimed_restart": 1}}, _NO, False),
        ({"is_draining": True}, _NO, False),
        ({"is_draining": True, "restart_count": 1, "submission": {"claimed_restart": 0}}, _NO, False),
        ({"is_draining": True, "submission": {"claimed_restart": 0}}, _RUN, False),
    ],
    ids=[
        "the recorded job",
        "the first of an unresolved submission",
        "a twin that holds the link while the recorded one has never claimed",
        "a twin of a job that has claimed",
        "a job without the link",
        "a job whose predecessor is over takes the link",
        "a replica that is gone",
        "a replica that has ended",
        "a submission that was rejected",
        "an earlier start of the job that holds the replica",
        "a replica that is not wanted any more",
        "a further start of a replica that is not wanted any more",
        "the start that serves a replica which drains asks again",
    ],
)
def test_a_claim(given: dict[str, object], verdict: claim.Verdict, take_over: bool) -> None:
    decision = _ask(**given)
    assert (verdict, take_over) == (decision.verdict, decision.take_over)


def test_a_claim_resolves_the_submission() -> None:
    record = _ask(submission={"state": _State.UNKNOWN, "job_id": None, "resolved_at": None}).record
    assert record is not None
    assert (_State.SUBMITTED, "7", make.NOW, 0) == (
        record.state,
        record.job_id,
        record.resolved_at,
        record.claimed_restart,
    )


def test_asking_twice_writes_once() -> None:
    assert None is _ask(submission={"claimed_restart": 0}).record
