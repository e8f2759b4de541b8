"""What is asked of a cluster, and when."""

from llmop.domain import replica
from llmop.reconciler import observe
from llmop.testing import builders as make

_State = replica.SubmissionState


def test_the_accounting_is_asked_for_every_job_that_may_have_left_the_queue() -> None:
    replicas = [
        make.a_replica(1),
        make.a_replica(2),
        # A late job has claimed it after a further attempt was refused.
        make.a_replica(3, submission_changes={"attempt_at": None}),
        make.a_replica(
            4, submission_changes={"attempt_at": None, "job_id": None, "state": _State.SUBMITTING}
        ),
        make.a_replica(5, end=replica.End(reason=replica.EndReason.LOST, at=make.NOW)),
    ]
    queue = {replicas[1].submission.job_name: ()}
    asked = observe.left_the_queue(replicas, queue)
    assert [replicas[0].submission, replicas[2].submission] == asked
