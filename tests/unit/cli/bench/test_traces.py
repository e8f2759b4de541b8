"""Traces of requests."""

import gzip
import math
from pathlib import Path

import pytest

from llmop.cli.bench import traces
from llmop.cli.bench.loads import Arrival, Lengths

# As the Azure LLM inference traces are written: seven digits of a second, CRLF, and not always in order.
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:17:03.9799600,4808,10\r\n"
    "2023-11-16 18:17:05.0319600,110,27\r\n"
    "2023-11-16 18:17:04.4799600,3180,8\r\n"
)


def read(path: Path, **options: float) -> traces.Trace:
    chosen = {"speed": 1.0, "seconds": math.inf, "start": 0.0, "most_tokens": 0, **options}
    return traces.read(
        path,
        speed=chosen["speed"],
        seconds=chosen["seconds"],
        start=chosen["start"],
        most_tokens=int(chosen["most_tokens"]),
    )


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    path = tmp_path / "AzureLLMInferenceTrace_code.csv"
    path.write_text(AZURE, newline="")
    return path


def test_arrivals_count_from_the_first_request_in_order(azure: Path) -> None:
    found = read(azure)
    assert "AzureLLMInferenceTrace_code" == found.name
    assert [(4808, 10), (3180, 8), (110, 27)] == [
        (each.lengths.prompt, each.lengths.output) for each in found.arrivals
    ]
    assert [0.0, 0.5, 1.052] == pytest.approx([each.at for each in found.arrivals], abs=1e-6)


def test_a_faster_replay_keeps_the_shape(azure: Path) -> None:
    assert [0.0, 0.05, 0.1052] == pytest.approx(
        [each.at for each in read(azure, speed=10).arrivals], abs=1e-6
    )


def test_a_part_begins_with_its_first_request_and_ends_by_the_time_of_the_replay(azure: Path) -> None:
    assert (Arrival(at=0.0, lengths=Lengths(prompt=3180, output=8)),) == read(
        azure, start=0.1, seconds=0.5
    ).arrivals


def test_what_a_model_cannot_take_is_shortened_and_counted(azure: Path) -> None:
    found = read(azure, most_tokens=128)
    assert 3 == found.shortened
    assert [(118, 10), (120, 8), (101, 27)] == [
        (each.lengths.prompt, each.lengths.output) for each in found.arrivals
    ]
    assert Lengths(prompt=1, output=1) == traces.fit(Lengths(prompt=9, output=9), 2)


def test_seconds_and_gzip_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "own.csv.gz"
    path.write_bytes(gzip.compress(b"GeneratedTokens,TIMESTAMP,ContextTokens\n0,12.5,7\n\n3,13,8\n"))
    assert (
        Arrival(at=0.0, lengths=Lengths(prompt=7, output=1)),
        Arrival(at=0.5, lengths=Lengths(prompt=8, output=3)),
    ) == read(path).arrivals


def test_what_a_spreadsheet_has_saved_is_read(tmp_path: Path) -> None:
    path = tmp_path / "saved.csv"
    path.write_text(AZURE, encoding="utf-8-sig", newline="")
    assert 3 == len(read(path).arrivals)


def test_a_trace_is_found_by_its_file_or_by_a_part_of_its_name_in_the_folder(
    azure: Path, tmp_path: Path
) -> None:
    environ = {traces.VARIABLE: str(tmp_path)}
    assert azure == traces.find(str(azure), {})
    for name in ("code", "AzureLLMInferenceTrace_code", "AzureLLMInferenceTrace_code.csv"):
        assert azure == traces.find(name, environ)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, '"conv" is no file; name one, or set LLMOP_TRACES to a folder'),
        ({"LLMOP_TRACES": "."}, "which has: AzureLLMInferenceTrace_code.csv"),
    ],
)
def test_a_trace_that_is_nowhere_is_said_to_be(azure: Path, environ: dict[str, str], words: str) -> None:
    environ = {name: str(azure.parent) for name in environ}
    with pytest.raises(traces.TraceError) as caught:
        traces.find("conv", environ)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ":1: has no column TIMESTAMP, ContextTokens, GeneratedTokens"),
        ("TIMESTAMP,ContextTokens\n", ":1: has no column GeneratedTokens"),
        (AZURE.replace("4808", "many"), ':2: ContextTokens "many" is no number of tokens'),
        (AZURE + "2023-11-16 18:17:05,1\r\n", ':5: GeneratedTokens "" is no number of tokens'),
        (AZURE.replace("2023-11-16 18:17:03.9799600", "2023-13-16 18:17:03"), ":2: TIMESTAMP"),
        (AZURE.replace("2023-11-16 18:17:03.9799600", "inf"), ':2: TIMESTAMP "inf"'),
        (AZURE.replace("2023-11-16 18:17:03.9799600", "9" * 400), ':2: TIMESTAMP "9999'),
        (AZURE.replace("4808", "9" * 5000), f':2: ContextTokens "{"9" * 40}" is no number of tokens'),
        (AZURE.replace("4808", "1000001"), ':2: ContextTokens "1000001" is no number of tokens from 0 to'),
        (AZURE + "9" * 200_000 + ",1,1\r\n", ":5: is no line of a CSV file"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "has no request in the part"),
        ("\x1f\x8b", "cannot be read"),
        ("\udcff", "cannot be read"),
    ],
)
def test_what_is_no_trace_is_refused_with_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(text.encode("latin-1" if text.startswith("\x1f") else "utf-8", "surrogateescape"))
    with pytest.raises(traces.TraceError) as caught:
        read(path)
    assert f"{path}" in str(caught.value)
    assert words in str(caught.value)
