"""Counts of several processes, told and added up."""

import orjson

from llmop.gateway import sums
from llmop.gateway.dispatch import Dropped
from llmop.gateway.errors import Dialect
from llmop.gateway.metrics import Counts, ModelCounts
from llmop.gateway.queue import Priority, Ticket
from llmop.gateway.retry import Failure


def counted(name: str, times: int) -> Counts:
    counts = Counts()
    counts.keep([name])
    model = counts.models[name]
    for _ in range(times):
        model.answered(Dialect.TGI, 200)
        model.left(Dialect.OPENAI)
        model.first_byte(0.02)
        model.spent(3, 4, False)
        model.spent(1, 1, True)
        model.failures[Failure.CUT] += 1
        model.dropped[Dropped.QUEUE_FULL] += 1
        ticket = Ticket(1, owner="a", priority=Priority.BULK, size=7, arrived_at=0.0)
        model.begins_to_wait(ticket)
        model.begins_to_wait(ticket)
        model.has_waited(ticket, 0.25)
        counts.refused["slow_head"] += 1
    model.in_flight = counts.connections = times
    return counts


def over_the_line(counts: Counts) -> sums.Told:
    told: sums.Told = orjson.loads(orjson.dumps(sums.tell(counts), option=orjson.OPT_NON_STR_KEYS))
    return told


def test_what_is_told_is_heard_as_it_was() -> None:
    heard = sums.hear(over_the_line(counted("m", 2)))
    for field in ModelCounts.__slots__:
        assert getattr(counted("m", 2).models["m"], field) == getattr(heard.models["m"], field)
    assert heard.models["unknown"] is heard.unknown
    assert (2, 2) == (heard.refused["slow_head"], heard.connections)


def test_counts_are_added_name_by_name() -> None:
    both = sums.hear(sums.add(over_the_line(counted("m", 2)), over_the_line(counted("m", 3))))
    for field in ModelCounts.__slots__:
        assert getattr(counted("m", 5).models["m"], field) == getattr(both.models["m"], field)
    assert (5, 5) == (both.refused["slow_head"], both.connections)


def test_a_model_that_only_one_knows_stays() -> None:
    both = sums.hear(sums.add(over_the_line(counted("m", 2)), over_the_line(counted("n", 3))))
    assert [2, 3] == [both.models[name].codes[Dialect.TGI][0] for name in ("m", "n")]


def test_the_dead_leave_their_counts_and_hold_nothing() -> None:
    dead = sums.hear(sums.of_the_dead(over_the_line(counted("m", 2))))
    assert (2, 0, 0) == (dead.models["m"].codes[Dialect.TGI][0], dead.models["m"].in_flight, dead.connections)
    assert ([0, 0, 0, 0], 0) == (dead.models["m"].queued, dead.models["m"].queued_bytes)
    assert (2, 2) == (dead.models["m"].wait_buckets[3], dead.models["m"].dropped[Dropped.QUEUE_FULL])
