"""How many replicas the load asks for: minutes and hours of it, played in steps of two seconds."""

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from llmop.domain import scaling
from llmop.planner import autoscale, engine_load

IN_FLIGHT, QUEUE, TOKENS = scaling.MetricType
MINUTE, HOUR = 60.0, 3600.0


def spec(**changes: object) -> scaling.Scaling:
    base = scaling.Scaling(max_replicas=8, metrics=(scaling.Metric(type=IN_FLIGHT, target=10),))
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@dataclasses.dataclass
class Play:
    """A deployment whose replicas are ready `lead_s` after they were asked for."""

    wanted: scaling.Scaling
    desired: int = 1
    lead_s: float = 0.0
    now: float = 1_000_000.0
    floor: autoscale.Floor | None = None
    samples: list[autoscale.Load] = dataclasses.field(default_factory=list)
    decisions: list[autoscale.Decision] = dataclasses.field(default_factory=list)
    steps: list[int] = dataclasses.field(default_factory=list)  # what was desired, without repetitions
    asked: list[float] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = autoscale.remember(self.desired, self.now)
        self.asked = [self.now - self.lead_s] * self.desired
        self.steps = [self.desired]

    def run(
        self,
        seconds: float,
        in_flight: float | Callable[[float], float] = 0,
        queued: int = 0,
        tokens: float | None = None,
        *,
        heard: bool = True,
        whole: bool = True,
        engines: engine_load.Engines | None = None,
    ) -> autoscale.Decision:
        begin = self.now
        while self.now < begin + seconds:
            self.now += autoscale.TICK_S
            amount = in_flight(self.now - begin) if callable(in_flight) else in_flight
            if heard:
                self.samples.append(
                    autoscale.Load(
                        at=self.now,
                        in_flight=int(amount),
                        queued=queued,
                        tokens_per_s=tokens,
                        is_whole=whole,
                        engines=engines,
                    )
                )
            while self.samples and self.samples[0].at <= self.now - autoscale.kept_s(self.wanted):
                self.samples.pop(0)
            ready = sum(1 for at in self.asked if at + self.lead_s <= self.now)
            fleet = autoscale.Fleet(
                ready=ready, on_the_way=len(self.asked) - ready, lead_s=self.lead_s or None
            )
            made = autoscale.decide(
                self.wanted, self.desired, self.samples, self.memory, fleet, self.floor, self.now
            )
            self.memory, self.desired = made.memory, made.desired
            self.asked = sorted(self.asked)[: self.desired] + [self.now] * (self.desired - len(self.asked))
            self.decisions.append(made)
            if self.desired != self.steps[-1]:
                self.steps.append(self.desired)
        return self.decisions[-1]


def test_what_the_replicas_are_meant_for_changes_nothing() -> None:
    play = Play(spec(), desired=2)
    made = play.run(2 * HOUR, 20)
    assert [2] == play.steps
    assert "Steady" == made.reason


@pytest.mark.parametrize(("load", "replicas"), [(10, 1), (11, 1), (12, 2), (30, 3), (79, 8), (500, 8)])
def test_a_load_gets_the_replicas_that_it_needs(load: int, replicas: int) -> None:
    """11 of 10 is within the tolerance of a tenth."""
    play = Play(spec())
    play.run(3 * MINUTE, load)
    assert replicas == play.desired


def test_a_step_is_answered_within_the_panic_window_and_then_held() -> None:
    play = Play(spec())
    play.run(5 * MINUTE, 5)
    play.run(8, 60)
    assert 6 == play.desired and play.decisions[-1].is_panic
    assert "LoadRose" in [each.reason for each in play.decisions[-4:]]
    play.run(10 * MINUTE, 60)
    assert 6 == play.desired and not play.decisions[-1].is_panic


def test_a_step_below_the_panic_threshold_takes_the_stable_window() -> None:
    play = Play(spec(), desired=4)
    play.run(5 * MINUTE, 40)
    play.run(10, 60)
    assert 4 == play.desired
    play.run(60, 60)
    assert 6 == play.desired


def test_what_was_asked_for_is_given_up_once_nobody_needed_it_for_the_window() -> None:
    play = Play(spec(down=scaling.Direction(stabilization_s=1800)))
    play.run(5 * MINUTE, 60)
    assert 6 == play.desired
    made = play.run(29 * MINUTE, 10)
    assert 6 == play.desired and "Stabilizing" == made.reason and "30m" in made.message
    play.run(3 * MINUTE, 10)
    assert 1 == play.desired
    assert "LoadFell" in [each.reason for each in play.decisions]


@pytest.mark.parametrize(
    ("lead_s", "window"),
    [
        pytest.param(30.0, "5m", id="a node comes at once: as in Kubernetes"),
        pytest.param(11.2 * MINUTE, "12m", id="as long as the next one would take"),
        pytest.param(3 * HOUR, "30m", id="a full cluster: not for ever"),
        pytest.param(0.0, "30m", id="nobody knows"),
    ],
)
def test_the_window_is_as_long_as_replicas_took_to_come_where_nobody_says_it(
    lead_s: float, window: str
) -> None:
    play = Play(spec(), desired=3, lead_s=lead_s)
    play.run(2 * MINUTE, 30)
    made = play.run(4 * MINUTE, 10)
    assert "Stabilizing" == made.reason and made.message.endswith(f"for {window}")
    said = Play(spec(down=scaling.Direction(stabilization_s=120)), desired=3, lead_s=lead_s)
    said.run(2 * MINUTE, 30)
    said.run(4 * MINUTE, 10)
    assert [3, 2, 1] == said.steps


def test_what_waits_at_full_replicas_counts_twice_what_they_serve_and_no_more() -> None:
    """There are clients behind it, but it grows for as long as the next replica takes to come."""
    play = Play(spec(max_replicas=100), desired=2, lead_s=15 * MINUTE)
    play.run(5 * MINUTE, 20)
    play.run(90, 20, queued=6)
    assert 3 == play.desired
    play.run(10 * MINUTE, 20, queued=400)
    assert [2, 3, 6] == play.steps


def test_who_had_to_wait_lately_keeps_replicas_for_as_long_as_the_next_would_take() -> None:
    """Longer than that after somebody had to wait, or nobody could tell, five minutes are enough."""
    play = Play(spec(), desired=3, lead_s=15 * MINUTE)
    play.run(20 * MINUTE, 30)
    made = play.run(4 * MINUTE, 20)
    assert "Stabilizing" == made.reason and made.message.endswith("for 5m")
    play.run(2 * MINUTE, 20)
    assert [3, 2] == play.steps

    crowded = Play(spec(), desired=3, lead_s=15 * MINUTE)
    crowded.run(20 * MINUTE, 30)
    crowded.run(10, 29, queued=1)
    made = crowded.run(14 * MINUTE, 20)
    assert "Stabilizing" == made.reason and made.message.endswith("for 15m")
    crowded.run(2 * MINUTE, 20)
    assert [3, 2] == crowded.steps


def test_requests_that_wait_at_replicas_that_serve_are_answered_within_the_panic_window() -> None:
    """Far below the panic threshold: they are full, whatever they are meant for."""
    play = Play(spec(), desired=3)
    play.run(5 * MINUTE, 25)
    play.run(6, 30, queued=9)
    assert 4 == play.desired and not play.decisions[-1].is_panic
    calm = Play(spec(), desired=3)
    calm.run(5 * MINUTE, 25)
    calm.run(6, 39)
    assert 3 == calm.desired


def test_what_waits_where_none_serves_yet_says_nothing_of_how_much_one_can_take() -> None:
    play = Play(spec(min_replicas=0), desired=0, lead_s=10 * MINUTE)
    play.run(HOUR)
    play.run(2, 0, queued=35)
    play.run(18, 0, queued=60)
    assert [0, 4] == play.steps


def test_who_begins_is_as_careful_as_if_somebody_had_waited() -> None:
    play = Play(spec(), desired=3, lead_s=15 * MINUTE)
    made = play.run(14 * MINUTE, 10)
    assert "Stabilizing" == made.reason and made.message.endswith("for 15m")


def test_a_queue_is_no_reason_to_grow_where_its_target_says_how_much_may_wait() -> None:
    metrics = (scaling.Metric(type=IN_FLIGHT, target=10), scaling.Metric(type=QUEUE, target=50))
    play = Play(spec(metrics=metrics), desired=3)
    play.run(5 * MINUTE, 25)
    play.run(10, 30, queued=9)
    assert [3] == play.steps


def test_a_short_peak_in_the_window_counts() -> None:
    play = Play(spec(down=scaling.Direction(stabilization_s=1800)), desired=6)
    for _ in range(4):
        play.run(25 * MINUTE, 10)
        play.run(2 * MINUTE, 60)
    assert [6] == play.steps


def test_policies_of_behavior_bound_each_period() -> None:
    down = scaling.Direction(
        stabilization_s=0,
        policies=(scaling.Policy(type=scaling.PolicyType.REPLICAS, value=1, period_s=60),),
    )
    up = scaling.Direction(
        stabilization_s=0,
        policies=(
            scaling.Policy(type=scaling.PolicyType.REPLICAS, value=2, period_s=60),
            scaling.Policy(type=scaling.PolicyType.PERCENT, value=50, period_s=60),
        ),
    )
    play = Play(spec(up=up, down=down))
    play.run(30, 80)
    assert [1, 3] == play.steps
    play.run(3 * MINUTE, 80)
    assert [1, 3, 5, 8] == play.steps  # half of five is more than two
    made = play.run(90, 10)
    assert [7, 6] == play.steps[4:] and "ScaleDownLimited" == made.reason
    play.wanted = spec(down=dataclasses.replace(down, select=scaling.Select.DISABLED))
    made = play.run(10 * MINUTE, 10)
    assert 6 == play.desired and "ScaleDownDisabled" == made.reason
    play.wanted = spec(up=dataclasses.replace(up, select=scaling.Select.MIN))
    play.run(8, 160)
    assert 8 == play.desired  # half of six is more than two


def test_the_stabilization_of_growth_takes_the_least_of_the_window() -> None:
    play = Play(spec(up=scaling.Direction(stabilization_s=120)))
    play.run(60, 60)
    assert 1 == play.desired and "Stabilizing" == play.decisions[-1].reason
    play.run(90, 60)
    assert 6 == play.desired


def test_zero_is_left_with_the_first_request_and_in_one_step() -> None:
    play = Play(spec(min_replicas=0), desired=0)
    made = play.run(HOUR)
    assert [0] == play.steps and "AtZero" == made.reason
    made = play.run(2, 0, queued=35)
    assert 4 == made.desired and "Woken" == made.reason
    step = autoscale.step(play.wanted, 0, made)
    assert "requests came for a model without replicas (35 now)" == step.message
    assert 0 == step.inputs["readyReplicas"]


def test_the_last_replica_goes_by_its_own_rule_alone() -> None:
    play = Play(spec(min_replicas=0, scale_to_zero_after_s=600))
    play.run(5 * MINUTE, 5)
    made = play.run(9 * MINUTE + 50)
    assert 1 == made.desired and "LastReplica" == made.reason
    made = play.run(20)
    assert 0 == made.desired
    assert "Idle" in [each.reason for each in play.decisions[-12:]]
    play.run(HOUR)
    assert [1, 0] == play.steps


def test_one_request_within_the_time_keeps_the_last_replica() -> None:
    play = Play(spec(min_replicas=0))
    for _ in range(5):
        play.run(9 * MINUTE)
        play.run(2, 1)
    assert [1] == play.steps


def test_a_deployment_with_a_least_number_does_not_go_to_zero() -> None:
    play = Play(spec(min_replicas=2), desired=2)
    made = play.run(2 * HOUR)
    assert 2 == made.desired and "MinReplicas" == made.reason and "TooFewReplicas" == made.limit


def test_nobody_shrinks_blind() -> None:
    for blind in ({"heard": False}, {"whole": False}):
        play = Play(spec(min_replicas=0), desired=3)
        play.run(10 * MINUTE, 30)
        made = play.run(5 * HOUR, 0, **blind)  # type: ignore[arg-type]
        assert [3] == play.steps and "LoadUnknown" == made.reason and not made.is_known
        # What was not seen is not held against them either.
        play.run(25 * MINUTE, 1)
        assert [3] == play.steps
        play.run(10 * MINUTE, 1)
        assert [3, 1] == play.steps


def test_a_gap_between_two_decisions_is_not_an_idle_time() -> None:
    play = Play(spec(min_replicas=0), desired=3)
    play.run(10 * MINUTE, 30)
    play.now += 2 * HOUR
    play.run(20 * MINUTE, 0)
    assert [3] == play.steps


def test_who_begins_knows_nothing_of_the_time_before() -> None:
    play = Play(spec(min_replicas=0), desired=5)
    play.run(29 * MINUTE, 1)
    assert [5] == play.steps


def test_a_metric_that_is_not_known_holds_and_the_others_may_ask_for_more() -> None:
    both = (
        scaling.Metric(type=IN_FLIGHT, target=10),
        scaling.Metric(type=TOKENS, target=1000),
    )
    play = Play(spec(metrics=both), desired=3)
    made = play.run(HOUR, 1, tokens=None)
    assert 3 == made.desired and "LoadUnknown" == made.reason
    made = play.run(5 * MINUTE, 50, tokens=None)
    assert 5 == made.desired
    play.run(HOUR, 1, tokens=4000.0)
    assert 4 == play.desired


def test_an_empty_queue_lets_replicas_go_one_by_one() -> None:
    play = Play(spec(metrics=(scaling.Metric(type=QUEUE, target=5),)), desired=4)
    play.run(95 * MINUTE, 12, queued=0)
    assert [4, 3, 2, 1] == play.steps
    play.run(2 * MINUTE, 12, queued=20)
    assert 4 == play.desired
    play.run(2 * HOUR, 12, queued=3)
    assert 4 == play.desired


def test_what_waits_for_replicas_on_their_way_is_no_reason_to_ask_again() -> None:
    play = Play(spec(min_replicas=0, max_replicas=100), desired=0, lead_s=15 * MINUTE)
    waits = 0
    for _ in range(14 * 30):
        waits += 2
        play.run(2, 0, queued=waits)
    # One request per second: what came in the first minute counts, not the hundreds that wait in the end.
    assert play.desired <= 8


def test_a_gentle_rise_is_met_before_it_is_there() -> None:
    def load(seconds: float) -> float:
        return 20 + seconds / 60

    early, late = Play(spec(), desired=2, lead_s=10 * MINUTE), Play(spec(), desired=2)
    for play in (early, late):
        play.run(20 * MINUTE, load)
    ahead = early.decisions[-1].readings[0]
    assert ahead.forecast is not None and ahead.stable is not None
    assert 8 <= ahead.forecast - ahead.stable <= 12
    assert early.desired > late.desired


def test_minutes_that_rose_by_chance_are_not_taken_for_a_rise() -> None:
    """With a lead of two minutes too: each minute higher than the one before, four times, is nothing that lasts."""
    play = Play(spec(), desired=3, lead_s=2 * MINUTE)
    play.run(30 * MINUTE, 24)
    made = play.run(4 * MINUTE, lambda seconds: 24 + seconds / 60)
    assert [3] == play.steps and made.readings[0].forecast == made.readings[0].stable


def test_a_step_is_not_taken_for_a_rise() -> None:
    play = Play(spec(), desired=1, lead_s=10 * MINUTE)
    play.run(20 * MINUTE, 8)
    play.run(30 * MINUTE, 40)
    assert [1, 4] == play.steps[:1] + play.steps[-1:]
    assert 4 == max(play.steps)


def test_schedules_and_bounds_hold_in_blindness_too() -> None:
    play = Play(spec(), desired=2)
    play.floor = autoscale.Floor(replicas=5, schedule="office")
    made = play.run(2, heard=False)
    assert 5 == made.desired and "Schedule" == made.reason and '"office"' in made.message
    play.wanted = spec(max_replicas=3)
    made = play.run(2, heard=False)
    assert 3 == made.desired and "MaxReplicas" == made.reason


def test_the_words_stay_as_long_as_the_reason_does() -> None:
    play = Play(spec(), desired=5)
    play.run(3 * MINUTE, 50)
    play.run(20 * MINUTE, lambda seconds: 10 + seconds % 7)
    assert 1 == len({each.message for each in play.decisions[-300:]})


# Properties

EXAMPLES = settings(max_examples=40)

amounts = some.integers(min_value=0, max_value=300)
specs = some.builds(
    lambda least, more, target, window, tolerance, panic: spec(
        min_replicas=least,
        max_replicas=least + more,
        metrics=(scaling.Metric(type=IN_FLIGHT, target=target),),
        down=scaling.Direction(stabilization_s=window),
        tolerance_percent=tolerance,
        panic_percent=panic,
    ),
    some.integers(0, 3),
    some.integers(1, 20),
    some.integers(1, 50),
    some.sampled_from([0, 60, 600]),
    some.sampled_from([0, 10, 50]),
    some.sampled_from([110, 200, 1000]),
)


@EXAMPLES
@given(
    wanted=specs,
    start=some.integers(0, 30),
    loads=some.lists(amounts, min_size=1, max_size=6),
    heard=some.booleans(),
)
def test_it_is_never_outside_its_bounds(
    wanted: scaling.Scaling, start: int, loads: list[int], heard: bool
) -> None:
    play = Play(wanted, desired=start)
    for load in loads:
        play.run(30, load, heard=heard)
    assert all(wanted.min_replicas <= each.desired <= wanted.max_replicas for each in play.decisions)


@EXAMPLES
@given(wanted=specs, start=some.integers(0, 30), before=amounts, seconds=some.sampled_from([30, 120, 2000]))
def test_blind_it_never_shrinks(wanted: scaling.Scaling, start: int, before: int, seconds: int) -> None:
    play = Play(wanted, desired=autoscale.bounded(wanted, start))
    play.run(60, before)
    held = play.desired
    play.run(6, before, heard=False)
    play.run(seconds, 0, heard=False)
    assert play.desired >= held


@EXAMPLES
@given(wanted=specs, start=some.integers(0, 30), load=amounts)
def test_a_constant_load_moves_it_once_in_a_direction_and_then_no_more(
    wanted: scaling.Scaling, start: int, load: int
) -> None:
    """No flapping: up to what is needed, or down to it, and the last replica."""
    play = Play(wanted, desired=autoscale.bounded(wanted, start))
    play.run(700, load)
    moves = [after - before for before, after in zip(play.steps, play.steps[1:], strict=False)]
    assert all(move > 0 for move in moves) or all(move < 0 for move in moves)
    settled = play.desired
    play.run(660, load)
    assert settled == play.desired or (load == 0 and play.desired == 0)


@EXAMPLES
@given(
    wanted=specs, start=some.integers(0, 30), loads=some.lists(amounts, min_size=1, max_size=4), more=amounts
)
def test_more_load_never_gets_fewer_replicas(
    wanted: scaling.Scaling, start: int, loads: list[int], more: int
) -> None:
    """From the same state, decided once: with each load higher, at least as many are wanted."""
    one = Play(wanted, desired=start)
    for load in loads:
        one.run(20, load)
    other = dataclasses.replace(
        one, samples=[dataclasses.replace(each, in_flight=each.in_flight + more) for each in one.samples]
    )
    other.memory, other.asked, other.desired = one.memory, one.asked, one.desired
    one.run(2, loads[-1])
    other.run(2, loads[-1] + more)
    assert other.desired >= one.desired


@EXAMPLES
@given(start=some.integers(1, 10), extra=some.integers(0, 10), load=amounts)
def test_what_is_on_its_way_counts_as_there(start: int, extra: int, load: int) -> None:
    """The same load, the same number wanted: pending or ready makes no difference to a load that does not wait in a queue."""
    wanted = spec(max_replicas=40)
    ready, waiting = Play(wanted, desired=start), Play(wanted, desired=start, lead_s=10 * HOUR)
    waiting.asked += [waiting.now] * extra
    for play in (ready, waiting):
        play.run(3 * MINUTE, load)
    assert ready.desired == waiting.desired
