"""Usage on its way: nothing lost, nothing twice, whoever ends when."""

import random
from collections import Counter
from pathlib import Path

import pytest

from llmop.domain.usage import Amount
from llmop.gateway import spool
from llmop.gateway.spool import Batch, Spool, State
from llmop.gateway.tally import Tally
from llmop.testing.clock import FakeClock

HOUR = 3600


def one(requests: int) -> Amount:
    return Amount(requests=requests)


def take(state: State, now: float = 0.0, complete: frozenset[str] = frozenset(), **tallies: int) -> State:
    return spool.take(
        state, {name: {("k", "m"): one(number)} for name, number in tallies.items()}, complete, now
    )


def counted(state: State) -> list[list[tuple[int, int]]]:
    return [[(row.hour, row.amount.requests) for row in batch.rows] for batch in state.batches]


def test_the_first_batch_stays_as_it_is_and_later_news_gather_in_the_last() -> None:
    state = State(spool="s")
    for number in (1, 3, 6, 10):
        state = take(state, a=number)
    assert [[(0, 1)], [(0, 9)]] == counted(state)
    assert [1, 2] == [batch.number for batch in state.batches]


def test_hours_are_kept_apart_while_the_controller_is_away() -> None:
    state = State(spool="s")
    for hour in range(4):
        state = take(state, now=hour * HOUR + 7.0, a=hour + 1)
    assert [[(0, 1)], [(HOUR, 1), (2 * HOUR, 1), (3 * HOUR, 1)]] == counted(state)


def test_nothing_new_changes_nothing() -> None:
    state = take(State(spool="s"), a=1)
    assert state == take(state, a=1)


def test_a_tally_that_is_over_is_taken_for_the_last_time() -> None:
    state = take(State(spool="s"), a=1, b=5, complete=frozenset("a"))
    assert (frozenset("a"), {"b"}) == (state.finished, set(state.taken))
    assert [[(0, 6)]] == counted(state)


def test_what_the_tallies_have_lost_is_not_taken_back() -> None:
    state = take(take(State(spool="s"), a=5), a=3, complete=frozenset("a"))
    assert [[(0, 5)]] == counted(state)


def test_batches_are_no_larger_than_a_message() -> None:
    amounts = {("k", str(number)): one(1) for number in range(2 * spool.BATCH + 1)}
    state = spool.take(State(spool="s"), {"a": amounts}, frozenset(), 0.0)
    assert [spool.BATCH, spool.BATCH, 1] == [len(batch.rows) for batch in state.batches]
    assert [1, 2, 3] == [batch.number for batch in state.batches]


def test_what_waits_is_bounded_by_keys_and_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """With both bounds a hundredth of what they are, and everything else in proportion."""
    monkeypatch.setattr(spool, "BATCH", spool.BATCH // 100)
    monkeypatch.setattr(spool, "MOST_ROWS", spool.MOST_ROWS // 100)
    amounts = {("k", str(number)): one(1) for number in range(2 * spool.BATCH + 1)}
    state = spool.take(State(spool="s"), {"a": amounts}, frozenset(), 0.0)
    for hour in range(1, 40):
        amounts = {names: one(hour + 1) for names in amounts}
        state = spool.take(state, {"a": amounts}, frozenset(), hour * HOUR)
    assert sum(len(batch.rows) for batch in state.batches) < spool.MOST_ROWS + 2 * len(amounts)
    assert 40 * len(amounts) == sum(row.amount.requests for batch in state.batches for row in batch.rows)


def test_the_file_gives_back_what_was_written() -> None:
    state = take(take(State(spool="s"), a=1, b=2, complete=frozenset("b")), now=HOUR, a=7)
    assert state == spool.from_json(spool.to_json(state))
    for damaged in (b"", b"{}", b"[]", b'{"spool":"s"}'):
        with pytest.raises(ValueError):
            spool.from_json(damaged)


def test_two_gateways_in_one_directory_have_spools_of_their_own_and_a_later_one_takes_over_the_first(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    one_spool, other = Spool(tmp_path, clock), Spool(tmp_path, clock)
    assert one_spool.folder != other.folder
    assert one_spool.name != other.name
    name = one_spool.name
    one_spool.close()
    again = Spool(tmp_path, clock)
    assert name == again.name
    again.close()
    other.close()


class Controller:
    """Counts each batch once; tells when two batches of one number differ."""

    def __init__(self) -> None:
        self.last: Counter[str] = Counter()
        self.requests = 0
        self.seen: dict[tuple[str, int], Batch] = {}

    def take(self, name: str, batch: Batch) -> None:
        assert batch == self.seen.setdefault((name, batch.number), batch)
        if batch.number > self.last[name]:
            self.last[name] = batch.number
            self.requests += sum(row.amount.requests for row in batch.rows)


@pytest.mark.parametrize("seed", range(8))
def test_every_request_is_counted_once_whoever_ends_between_any_two_steps(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    clock = FakeClock()
    controller = Controller()
    made = 0
    current = Spool(tmp_path, clock)
    workers = [Tally(current.folder, clock.suffix(12)) for _ in range(2)]
    for _ in range(80):
        step = chance.random()
        if step < 0.4:
            for _ in range(chance.randrange(5)):
                chance.choice(workers).of("k", chance.choice("mn")).used(1, 1, False)
                made += 1
        elif step < 0.5:  # a worker ends
            ended = chance.randrange(len(workers))
            workers[ended].close()
            workers[ended] = Tally(current.folder, clock.suffix(12))
        elif step < 0.6:  # the parent ends; its workers go on for a while
            current.close()
            current = Spool(tmp_path, clock)
        elif step < 0.65:
            clock.advance(HOUR)
        else:
            batch = current.collect()
            if batch is not None and chance.random() < 0.7:
                controller.take(current.name, batch)
                if chance.random() < 0.7:  # else its answer is lost
                    current.arrived(batch.number)
    for each in workers:
        each.close()
    while (batch := current.collect()) is not None:
        controller.take(current.name, batch)
        current.arrived(batch.number)
    current.collect()
    assert made == controller.requests
    assert not list(current.folder.glob("*.tally"))
    current.close()


@pytest.mark.parametrize("content", [b"\xff" * 5 * 512, b"\xff" * 7, b"\1\0\5\0\5\0" + b"\xff" * 506])
def test_a_damaged_tally_is_put_aside_and_the_others_are_counted(tmp_path: Path, content: bytes) -> None:
    current = Spool(tmp_path, FakeClock())
    damaged = current.folder / "a.tally"
    damaged.write_bytes(content)
    worker = Tally(current.folder, "b")
    for _ in range(2):
        worker.of("k", "m").used(1, 1, False)
        batch = current.collect()
        assert batch is not None
        current.arrived(batch.number)
    assert current.collect() is None
    assert content == (current.folder / "a.damaged").read_bytes()
    assert not damaged.exists()
    worker.close()
    current.close()
