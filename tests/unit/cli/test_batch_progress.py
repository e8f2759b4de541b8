"""How far a batch is, in words."""

import pytest
from tests.integration.cli.terminal import Side

from llmop.cli.batch_progress import Meter, Progress, Rate, words


def test_the_rate_is_that_of_late() -> None:
    meter = Meter()
    assert Rate(None, None) == meter.add(0.0, 0, 100)
    assert Rate(2.0, 40.0) == meter.add(10.0, 20, 100)
    assert Rate(None, None) == Meter().add(5.0, 50, 100)
    meter.add(40.0, 80, 100)
    assert pytest.approx((1.4, 10 / 1.4)) == meter.add(
        60.0, 90, 100
    )  # since 10, the last moment that is old enough


def test_a_restart_of_the_other_side_gives_no_rate_of_nothing() -> None:
    meter = Meter()
    meter.add(0.0, 10, 100)
    assert Rate(None, None) == meter.add(1.0, 10, 100)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (None, "in_progress"),
        ({"total": 9, "completed": 3, "failed": 0}, "in_progress: 3/9"),
        ({"total": 9, "completed": 3, "failed": 2}, "in_progress: 5/9, 2 failed"),
    ],
)
def test_words(counts: dict[str, int] | None, said: str) -> None:
    assert said == words({"status": "in_progress", "request_counts": counts})


def test_where_nobody_looks_only_what_is_new_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    batch = {"status": "in_progress", "request_counts": {"total": 100, "completed": 1, "failed": 0}}
    with Progress() as showing:
        showing.show(batch)
        showing.show(batch | {"request_counts": {"total": 100, "completed": 5, "failed": 0}})
        showing.show(batch | {"llmop": {"waiting": "all seats are taken"}})
        showing.show(batch | {"status": "completed"})
    assert [
        "in_progress: 1/100",
        "in_progress: 1/100 (all seats are taken)",
        "completed: 1/100",
    ] == capsys.readouterr().err.splitlines()


def test_on_a_terminal_a_bar_is_rewritten_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side()
    monkeypatch.setattr("sys.stderr", side.file)
    batch = {"status": "in_progress", "request_counts": {"total": 100, "completed": 1, "failed": 0}}
    with Progress() as showing:
        showing.show(batch)
        showing.show(batch | {"request_counts": {"total": 100, "completed": 50, "failed": 0}})
        showing.show(batch | {"llmop": {"waiting": "all seats\x1b[2J are taken"}})
    left = side.close()
    written = side._shown.decode()
    assert "━" in written
    assert "in_progress: 50/100, " in written
    assert "/s, " in written
    assert "all seats" in written
    assert "\x1b[2J" not in written
    assert "" == left.strip()
