"""Back-off belongs to a revision: what people change is tried at once."""

from llmop.planner import backoff, values

NOW = 1_760_000_000.0


def test_crashes_of_an_old_revision_hold_nothing_back() -> None:
    crashed = backoff.after_crashes(values.Record(), 3, revision=1, now=NOW)

    assert "CrashLoopBackOff" == backoff.creation(backoff.for_revision(crashed, 1), 1, 1, NOW + 1).reason
    assert "" == backoff.creation(backoff.for_revision(crashed, 2), 1, 1, NOW + 1).reason


def test_a_changed_manifest_does_not_renew_the_budget() -> None:
    spent = backoff.after_submissions(values.Record(), backoff.budget(1, 1), NOW)
    crashed = backoff.after_crashes(spent, 1, revision=1, now=NOW)

    assert "SubmissionBudgetSpent" == backoff.creation(backoff.for_revision(crashed, 2), 1, 1, NOW + 1).reason
