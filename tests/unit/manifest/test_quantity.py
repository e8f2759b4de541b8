"""Durations and amounts of memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.manifest import quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1d1h1m1s", 90061),
        ("0s", 0),
        ("500ms", 0.5),
        ("1s500ms", 1.5),
    ],
)
def test_a_duration_is_numbers_with_units_from_large_to_small(text: str, seconds: float) -> None:
    assert seconds == quantity.seconds(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:30:00", 1800),
        ("24:00:00", 86400),
        ("1-00:00:00", 86400),
        ("2-12", 216000),
        ("0-01:30", 5400),
        ("90m", 5400),
    ],
)
def test_slurms_forms_count_where_a_walltime_is_meant(text: str, seconds: float) -> None:
    assert seconds == quantity.seconds(text, slurm=True)


@pytest.mark.parametrize(
    "text",
    ["", "90", "s", "1m1h", "1.5h", "-5s", " 5s", "5 s", "5S", "٣s", "1:00", "60:00", "1e3s", "999999999d"],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    for slurm in (False, True):
        with pytest.raises(ValueError, match=r".") as caught:
            quantity.seconds(text, slurm=slurm)
        assert repr(text) in str(caught.value)


def test_slurms_forms_are_no_durations_elsewhere() -> None:
    with pytest.raises(ValueError, match="'24:00:00' is not a duration; write it like 90s, 10m or 1h30m"):
        quantity.seconds("24:00:00")


def test_a_bare_number_is_told_to_take_a_unit() -> None:
    with pytest.raises(ValueError, match="'90' is not a duration; add a unit, like 90s or 90m"):
        quantity.seconds("90")


def test_memory_has_binary_units() -> None:
    assert [512, 65536, 1048576] == [quantity.mebibytes(text) for text in ("512Mi", "64Gi", "1Ti")]


@pytest.mark.parametrize("text", ["", "64", "64G", "64GB", "0Mi", "1.5Gi", "-1Mi", "64 Gi"])
def test_other_amounts_of_memory_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 512Mi or 64Gi") as caught:
        quantity.mebibytes(text)
    assert repr(text) in str(caught.value)


@given(seconds=st.integers(0, quantity.MAX_SECONDS), mebibytes=st.integers(1, 10**9))
def test_what_we_write_we_read(seconds: int, mebibytes: int) -> None:
    assert seconds == quantity.whole_seconds(quantity.write_seconds(seconds), slurm=True)
    assert mebibytes == quantity.mebibytes(quantity.write_mebibytes(mebibytes))
