"""Traces of requests: rows of arrival, prompt tokens, generated tokens.

The columns are those of the Azure LLM inference traces (github.com/Azure/AzurePublicDataset, AzureLLMInferenceTrace_code.csv and _conv.csv,
CC-BY): TIMESTAMP, ContextTokens, GeneratedTokens. TIMESTAMP is a date and a time of day, or a number of seconds.
"""

import contextlib
import csv
import dataclasses
import datetime
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from llmop.cli.bench.loads import MOST_ARRIVALS, MOST_TOKENS, Arrival, Lengths

VARIABLE = "LLMOP_TRACES"
COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# Their fractions have seven digits, one more than datetime reads.
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|\+00:00)?")
_SECONDS = re.compile(r"\d{1,12}(\.\d+)?")  # more than that are no time of a clock
_TOKENS = re.compile(r"\d{1,9}")
_SHOWN = 40  # characters of a cell


class TraceError(ValueError):
    """A trace that is not there or cannot be read; the sentence names file, line and what may stand there."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """`shortened` counts the requests that were longer than the model takes."""

    name: str
    arrivals: tuple[Arrival, ...]
    shortened: int = 0


def find(name: str, environ: Mapping[str, str]) -> Path:
    """The file called so, or that of a trace in the folder LLMOP_TRACES, of which a part of the name is enough. Raises TraceError."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    folder = environ.get(VARIABLE, "")
    if not folder:
        raise TraceError(
            f'"{name}" is no file; name one, or set {VARIABLE} to a folder of traces and name one of these'
        )
    known = sorted(each for each in Path(folder).glob("*.csv*") if each.is_file())
    found = [each for each in known if name in (each.name, each.name.split(".")[0])]
    found = found or [each for each in known if each.name.split(".")[0].endswith(f"_{name}")]
    if len(found) != 1:
        names = ", ".join(each.name for each in known) or "none"
        raise TraceError(f'"{name}" is no file, and not one trace of {folder}, which has: {names}')
    return found[0]


def read(path: Path, *, speed: float, seconds: float, start: float, most_tokens: int) -> Trace:
    """The requests of `seconds` of the replay (inf = all), beginning `start` seconds after the trace's own beginning; the first one
    is due at 0. `most_tokens` (0 = any) is what a model takes: of a longer request the prompt is cut, then the answer. Raises TraceError.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")  # spreadsheets begin a file with a byte order mark
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    name = path.name.split(".")[0]
    rows = sorted(_rows(path, io.StringIO(text)))
    made: list[Arrival] = []
    shortened = 0
    began = None
    for at, prompt, output in rows:
        if at - rows[0][0] < start:
            continue
        began = at if began is None else began
        due = (at - began) / speed
        if due >= seconds or len(made) == MOST_ARRIVALS:
            break
        asked = Lengths(prompt=prompt, output=output)
        fits = fit(asked, most_tokens) if most_tokens else asked
        shortened += fits != asked
        made.append(Arrival(at=due, lengths=fits))
    if not made:
        raise TraceError(f"{path}: has no request in the part that was asked for")
    return Trace(name=name, arrivals=tuple(made), shortened=shortened)


def fit(asked: Lengths, most: int) -> Lengths:
    """So long that prompt and answer together are at most `most` tokens."""
    output = min(asked.output, most - 1)
    return Lengths(prompt=min(asked.prompt, most - output), output=output)


def _rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[float, int, int]]:
    reader = csv.reader(lines)
    head = next(reader, [])
    if missing := [column for column in COLUMNS if column not in head]:
        raise TraceError(
            f"{path}:1: has no column {', '.join(missing)}; the first line names {', '.join(COLUMNS)}"
        )
    places = [head.index(column) for column in COLUMNS]
    try:
        for row in reader:
            if not row:
                continue
            cells = [row[place] if place < len(row) else "" for place in places]
            yield _row(f"{path}:{reader.line_num}", cells)
    except csv.Error as error:
        raise TraceError(f"{path}:{reader.line_num}: is no line of a CSV file: {error}") from error


def _row(place: str, cells: Sequence[str]) -> tuple[float, int, int]:
    at = _moment(cells[0])
    if at is None:
        raise TraceError(
            f'{place}: TIMESTAMP "{cells[0][:_SHOWN]}" is neither a time (2023-11-16 18:17:03.9799600) nor a number of seconds'
        )
    for column, cell in zip(COLUMNS[1:], cells[1:], strict=True):
        if not _TOKENS.fullmatch(cell.strip()) or int(cell) > MOST_TOKENS:
            raise TraceError(
                f'{place}: {column} "{cell[:_SHOWN]}" is no number of tokens from 0 to {MOST_TOKENS:,}'
            )
    # A request has at least a token to read and one to write.
    return at, max(1, int(cells[1])), max(1, int(cells[2]))


def _moment(text: str) -> float | None:
    text = text.strip()
    if found := _MOMENT.fullmatch(text):
        with contextlib.suppress(ValueError):
            whole = datetime.datetime.fromisoformat(found[1]).replace(tzinfo=datetime.UTC)
            return whole.timestamp() + float(f"0.{found[2] or 0}")
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    return None
