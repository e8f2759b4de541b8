"""Which key comes next."""

from llmop.reconciler import queue

A = queue.Key(kind="ModelDeployment", namespace="default", name="a")
B = queue.Key(kind="ModelDeployment", namespace="default", name="b")


def test_a_key_is_in_the_queue_once() -> None:
    work = queue.WorkQueue()
    work.add(A)
    work.add(A)
    assert (A, None) == (work.take(0), work.take(0))


def test_what_somebody_waits_for_comes_first() -> None:
    work = queue.WorkQueue()
    work.add(A, queue.RESYNC)
    work.add(B, queue.URGENT)
    assert [B, A] == [work.take(0), work.take(0)]


def test_a_key_that_is_asked_for_more_urgently_moves_forward() -> None:
    work = queue.WorkQueue()
    work.add(A)
    work.add(B)
    work.add(B, queue.URGENT)
    assert [B, A, None] == [work.take(0), work.take(0), work.take(0)]


def test_a_key_that_is_added_while_it_is_worked_on_comes_again_afterwards() -> None:
    work = queue.WorkQueue()
    work.add(A)
    assert A == work.take(0)
    work.add(A)
    assert None is work.take(0)
    work.done(A)
    assert A == work.take(0)


def test_a_delayed_key_comes_when_it_is_due_and_the_earliest_wish_counts() -> None:
    work = queue.WorkQueue()
    work.add_at(A, 10)
    work.add_at(A, 20)
    assert (None, 10, A, None) == (work.take(9), work.next_at(), work.take(10), work.next_at())


def test_back_off_doubles_from_5_ms_to_5_minutes() -> None:
    assert [0.005, 0.01, 0.02, 300.0, 300.0] == [queue.backoff_s(count, 0) for count in (0, 1, 2, 16, 1000)]
    assert 360.0 == queue.backoff_s(1000, 1)
