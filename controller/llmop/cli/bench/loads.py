"""What is asked for, and when: closed loops, open loops at a rate, and traces. Pure."""

import dataclasses
import enum
import itertools
import random
from collections.abc import Iterator, Sequence

MOST_STREAMS = 4096
MOST_RATE = 10_000.0  # requests per second
MOST_TOKENS = 1_000_000
MOST_ARRIVALS = 1_000_000  # of one cell: they are made ahead of it, and kept


class LoadError(ValueError):
    """A list that cannot be read; the sentence names the value and what may stand there."""


class Mode(enum.StrEnum):
    """CLOSED: so many streams, each asks again when it was answered. The others are open loops: they ask when it is time, whatever came
    of what they asked before.
    """

    CLOSED = "closed"
    POISSON = "poisson"
    CONSTANT = "constant"
    TRACE = "trace"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Lengths:
    """Tokens of a prompt and of its answer, as asked for."""

    prompt: int
    output: int

    def __str__(self) -> str:
        return f"{self.prompt}:{self.output}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A request that is due `at` seconds after the beginning."""

    at: float
    lengths: Lengths


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One measurement. `level` is the number of streams, the rate per second, or how many times faster a trace is played than it was
    recorded; `lengths` is None for a trace, whose rows have their own.
    """

    model: str
    mode: Mode
    level: float
    lengths: Lengths | None = None
    trace: str = ""

    @property
    def words(self) -> str:
        """The load without the model."""
        return self.at([self.level])

    def at(self, levels: Sequence[float]) -> str:
        """The same load at several levels."""
        numbers = ", ".join(f"{each:g}" for each in levels)
        if self.mode is Mode.CLOSED:
            return f"{self.lengths} x {numbers} streams"
        if self.mode is Mode.TRACE:
            return f"{self.trace} x {numbers}"
        return f"{self.lengths} at {numbers}/s {self.mode}"


def cells(
    models: Sequence[str], mode: Mode, levels: Sequence[float], lengths: Sequence[Lengths], trace: str = ""
) -> list[Cell]:
    """All of them: by model, lengths, and then from the lightest load to the heaviest."""
    shapes: Sequence[Lengths | None] = [None] if mode is Mode.TRACE else lengths
    return [
        Cell(model=model, mode=mode, level=level, lengths=shape, trace=trace)
        for model, shape, level in itertools.product(models, shapes, sorted(levels))
    ]


def arrivals(cell: Cell, seconds: float, seed: int) -> Iterator[Arrival]:
    """Those of an open loop at a rate, before `seconds` are over. The same seed gives the same ones."""
    assert cell.lengths is not None
    chance = random.Random(seed)
    at = 0.0
    for number in itertools.count(1):
        if cell.mode is Mode.POISSON:
            at += chance.expovariate(cell.level)
        else:
            at = (number - 1) / cell.level
        if at >= seconds:
            return
        yield Arrival(at=at, lengths=cell.lengths)


def streams(text: str) -> list[float]:
    """`1,2,4` as numbers of streams without repetition. Raises LoadError."""
    return _numbers(text, 1, MOST_STREAMS, whole=True)


def numbers(text: str, *, most: float) -> list[float]:
    """`0.5,1,2` as numbers above 0 without repetition. Raises LoadError."""
    return _numbers(text, 0.001, most, whole=False)


def lengths(text: str) -> list[Lengths]:
    """`128:64,1024:128` as lengths of prompt and answer. Raises LoadError."""
    found = []
    for part in text.split(","):
        prompt, colon, output = part.strip().partition(":")
        sizes = [int(each) if each.isdecimal() else 0 for each in (prompt, output)]
        if not colon or not all(1 <= size <= MOST_TOKENS for size in sizes):
            raise LoadError(
                f'"{part.strip()}" is no length; write PROMPT:OUTPUT in tokens, 1 to {MOST_TOKENS:,} each, such as 128:64'
            )
        found.append(Lengths(prompt=sizes[0], output=sizes[1]))
    return list(dict.fromkeys(found))


def _numbers(text: str, least: float, most: float, *, whole: bool) -> list[float]:
    found = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = float("nan")
        if not least <= value <= most or (whole and value != int(value)):
            kind = "whole number" if whole else "number"
            raise LoadError(
                f'"{part.strip()}" is no {kind} from {least:g} to {most:,.0f}; write such as 1,2,4'
            )
        found.append(value)
    return list(dict.fromkeys(found))
