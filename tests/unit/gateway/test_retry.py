"""The budget of retries."""

from llmop.gateway.retry import RESERVE, Budget, pause


def test_a_busy_gateway_may_retry_a_tenth_of_its_requests() -> None:
    budget = Budget(tokens=0.0)
    for _ in range(205):
        budget.earn()
    assert [True] * 20 + [False] == [budget.spend(0.0) for _ in range(21)]


def test_a_quiet_gateway_earns_its_reserve_again() -> None:
    budget = Budget()
    spent = [budget.spend(0.0) for _ in range(int(RESERVE) + 1)]
    assert [True] * int(RESERVE) + [False] == spent
    assert [True, True, False] == [budget.spend(2.5), budget.spend(2.5), budget.spend(2.5)]


def test_pauses_grow_and_are_spread() -> None:
    assert (0.0, 0.0125, 0.05) == (pause(1, 0.0), pause(1, 0.5), pause(2, 1.0))
