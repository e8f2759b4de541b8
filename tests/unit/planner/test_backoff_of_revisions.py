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


def test_words_are_true_of_every_end_that_counts_and_stay_the_same() -> None:
    """Of one that somebody has cancelled after a day too: nothing is said about when it ended, or by whose hand."""
    once = backoff.after_crashes(values.Record(), 1, revision=1, now=NOW)
    thrice = backoff.after_crashes(once, 2, revision=1, now=NOW)

    words = "1 replica of this template ended although it was wanted; no new one before 2025-10-09T08:53:30Z"
    assert {words} == {backoff.creation(once, 1, 1, NOW + passed).message for passed in (0, 3, 9)}
    words = (
        "3 replicas of this template ended although they were wanted; no new one before 2025-10-09T08:54:00Z"
    )
    assert {words} == {backoff.creation(thrice, 1, 1, NOW + passed).message for passed in (0, 3, 39)}
    assert words == backoff.crashed(thrice)
