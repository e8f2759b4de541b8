"""What the options mean together."""

import math
from pathlib import Path
from typing import Any

import pytest

from llmop.cli.bench import asked
from llmop.cli.bench.loads import Lengths, Mode
from llmop.cli.errors import UsageError


def given(**options: Any) -> asked.Given:
    nothing = dict.fromkeys(each for each in asked.Given.__dataclass_fields__)
    usual = {
        "models": (), "api": "chat", "most_open": 1000, "timeout": 300.0, "ignore_eos": False, "label": ""
    }  # fmt: skip
    return asked.Given(**{**nothing, **usual, **options})


def test_without_options_it_is_the_paper_s_experiment() -> None:
    found = asked.understand(given(), {})
    assert (Mode.CLOSED, (1, 2, 4, 8, 16, 32, 64, 128)) == (found.mode, found.levels)
    assert ((Lengths(prompt=128, output=64),), 2.0, 20.0) == (found.lengths, found.warm_up_s, found.seconds)


def test_a_rate_is_by_chance_unless_it_is_said_to_be_constant() -> None:
    assert Mode.POISSON is asked.understand(given(rate="2"), {}).mode
    assert Mode.CONSTANT is asked.understand(given(rate="2", arrivals="constant"), {}).mode


def test_a_trace_is_played_to_its_end_at_each_speed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,5,5\n60,5,5\n")
    found = asked.understand(given(trace=str(path), speed="1,60"), {})
    assert (Mode.TRACE, math.inf, 0.0) == (found.mode, found.seconds, found.warm_up_s)
    assert {1.0: [0.0, 60.0], 60.0: [0.0, 1.0]} == {
        speed: [each.at for each in trace.arrivals] for speed, trace in found.traces.items()
    }


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        asked.understand(
            given(
                concurrency="0", rate="1", lengths="1", duration=0.0, warm_up=-1.0, timeout=0.0, speed="2",
                url="http://a", gateway_url="http://b",
            ),
            {},
        )  # fmt: skip
    for words in (
        "--concurrency and --rate are different loops",
        "--speed belongs to --trace",
        '--lengths "1" is no length',
        "--duration must be more than 0",
        "--warm-up must be 0 or more",
        "--timeout must be more than 0",
        "--url and --gateway are two addresses",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concurrency": "1,x"}, '--concurrency "x" is no whole number'),
        ({"arrivals": "poisson"}, "--arrivals belongs to --rate"),
        ({"rate": "1", "requests": 5}, "--requests belongs to --concurrency"),
        ({"rate": "1", "time_scale": 2.0}, "--time-scale belongs to --concurrency"),
        ({"trace": "t", "lengths": "1:1"}, "--lengths belongs to --concurrency and --rate"),
        ({"trace": "t"}, '--trace "t" is no file'),
        ({"trace": "t", "speed": "0"}, '--speed "0" is no number'),
        ({"rate": "10000", "duration": 3600.0}, "one measurement has at most 1,000,000"),
        ({"duration": 1e9}, "at most a day"),
    ],
)
def test_options_that_mean_nothing_together_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked.understand(given(**options), {})
    assert words in str(caught.value)
