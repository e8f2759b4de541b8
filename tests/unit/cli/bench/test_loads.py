"""What is sent when."""

import itertools
import statistics

import pytest

from llmop.cli.bench import loads
from llmop.cli.bench.loads import Cell, Lengths, LoadError, Mode

SHORT = Lengths(prompt=8, output=4)


def cell(mode: Mode, level: float) -> Cell:
    return Cell(model="m", mode=mode, level=level, lengths=SHORT)


def test_constant_arrivals_are_the_same_time_apart_and_end_before_the_end() -> None:
    made = [each.at for each in loads.arrivals(cell(Mode.CONSTANT, 4), 1.0, 7)]
    assert [0.0, 0.25, 0.5, 0.75] == made


def test_poisson_arrivals_have_the_rate_and_the_spread_of_chance() -> None:
    """Gaps of a Poisson process have a deviation as large as their mean; those of a clock have none."""
    made = [each.at for each in loads.arrivals(cell(Mode.POISSON, 50), 400.0, 7)]
    gaps = [after - before for before, after in itertools.pairwise(made)]
    assert made == sorted(made)
    assert made[-1] < 400
    assert len(made) == pytest.approx(50 * 400, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.03)


def test_the_same_seed_gives_the_same_arrivals_and_another_one_others() -> None:
    first, again, other = (list(loads.arrivals(cell(Mode.POISSON, 50), 2.0, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_cells_go_from_the_lightest_load_to_the_heaviest_for_each_model_and_length() -> None:
    long = Lengths(prompt=80, output=4)
    made = loads.cells(["a", "b"], Mode.CLOSED, [8, 1], [SHORT, long])
    wanted = [(model, shape, level) for model in "ab" for shape in (SHORT, long) for level in (1, 8)]
    assert wanted == [(each.model, each.lengths, each.level) for each in made]


def test_lists_are_read_without_repetition() -> None:
    assert [1, 128, 2] == loads.streams("1,128,2,1")
    assert [0.5, 2] == loads.numbers("0.5, 2", most=10)
    assert [Lengths(prompt=128, output=64), Lengths(prompt=1024, output=1)] == loads.lengths(
        "128:64,1024:1,128:64"
    )


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        pytest.param(loads.streams, "1,0", '"0" is no whole number from 1 to 4,096', id="no stream"),
        pytest.param(loads.streams, "1.5", '"1.5" is no whole number', id="half a stream"),
        pytest.param(loads.streams, "4097", '"4097" is no whole number', id="too many"),
        pytest.param(loads.streams, "", '"" is no whole number', id="nothing"),
        pytest.param(loads.streams, "nan", '"nan" is no whole number', id="not a number"),
        pytest.param(loads.lengths, "128", '"128" is no length; write PROMPT:OUTPUT', id="no colon"),
        pytest.param(loads.lengths, "0:1", '"0:1" is no length', id="no prompt"),
        pytest.param(loads.lengths, "1:2000000", "is no length", id="too long"),
        pytest.param(loads.lengths, "a:b", '"a:b" is no length', id="words"),
    ],
)
def test_what_is_wrong_is_named_with_what_may_stand_there(read: object, text: str, words: str) -> None:
    assert callable(read)
    with pytest.raises(LoadError) as caught:
        read(text)
    assert words in str(caught.value)
