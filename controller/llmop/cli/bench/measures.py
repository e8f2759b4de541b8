"""Figures of what was seen in one cell. Pure.

Which requests count: those that were due in the window, however late they were answered; leaving out the unfinished ones would leave out
the slow ones. Rates are of what came within the window. The latency of an open loop's request is counted from the moment that it was due,
not from when it was sent: a server (or a client) that stands still is not spared the requests that came meanwhile ("coordinated omission").
"""

import collections
import dataclasses
import math
from array import array
from collections.abc import Mapping, Sequence

from llmop.cli.bench.loads import Cell, Mode

BUSY_SHARE = 0.8  # of a core: the client is one thread
LATE_S = 0.01
SHORT = 5  # times the median answer: in a shorter window it depends on chance how many answers end
FEW = 100  # samples: below, the 99th percentile is the largest or nearly
PERCENTILES = (50, 95, 99)


@dataclasses.dataclass(slots=True)
class Sample:
    """One request; times are seconds of one clock. `due_at` is when it should have been sent; `first_at`, `last_at` (of pieces) and
    `ended_at` are 0 where it did not come so far. `error` is its class, "" when it was answered; `message` is a sentence about it.

    `pieces` counts the events that had text; the token counts are the server's, None where it said nothing.
    """

    due_at: float
    sent_at: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0
    ended_at: float = 0.0
    pieces: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""
    message: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """How the client itself did: the share of a core that it used, by how many seconds its loop was late (99th percentile), connections that it
    opened, requests that waited in it because so many were open, and the most that were open at once.
    """

    cpu_share: float
    lag_s: float
    connections: int = 0
    held_back: int = 0
    most_open: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A distribution in seconds; each percentile is a value that was seen (nearest rank). All 0 without samples."""

    count: int
    mean: float
    min: float
    max: float
    p50: float
    p95: float
    p99: float
    curve: tuple[float, ...] = ()  # at 0, 5, ... 95, 99, 100 percent


CURVE = (0, *range(5, 100, 5), 99, 100)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Failures:
    """Of one class, with what was said the first time."""

    count: int
    example: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one cell gave. Rates are per second of `seconds`, the window; token counts are means per answered request.

    `tokens_counted_by` is "server", or "events" where it did not say: then each event that had text counts as one token.
    """

    cell: Cell
    seconds: float
    requests: int
    answered: int
    errors: Mapping[str, Failures]
    ttft: Spread
    itl: Spread
    e2e: Spread
    tokens_per_second: float
    requests_per_second: float
    prompt_tokens: float
    output_tokens: float
    tokens_counted_by: str
    client: Client
    warnings: tuple[str, ...] = ()
    is_interrupted: bool = False

    @property
    def failed(self) -> int:
        return self.requests - self.answered


def spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    if not ordered:
        return Spread(count=0, mean=0.0, min=0.0, max=0.0, p50=0.0, p95=0.0, p99=0.0)
    p50, p95, p99 = (percentile(ordered, percent) for percent in PERCENTILES)
    return Spread(
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        min=ordered[0],
        max=ordered[-1],
        p50=p50,
        p95=p95,
        p99=p99,
        curve=tuple(percentile(ordered, percent) for percent in CURVE),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of them do not exceed."""
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(1, rank) - 1]


def figures(
    cell: Cell,
    samples: Sequence[Sample],
    gaps: "array[float]",
    *,
    seconds: float,
    pieces: int,
    answers: int,
    client: Client,
    is_interrupted: bool = False,
    notes: Sequence[str] = (),
) -> Figures:
    """`samples` are the requests that count; `gaps` the seconds between the pieces of each; `pieces` and `answers` came in the window."""
    good = [each for each in samples if not each.error]
    counted = [each for each in good if each.output_tokens is not None and each.pieces]
    by_server = bool(counted) and len(counted) == len(good)
    tokens = sum((each.output_tokens or 0) if by_server else each.pieces for each in good)
    seen = sum(each.pieces for each in good)
    made = Figures(
        cell=cell,
        seconds=seconds,
        requests=len(samples),
        answered=len(good),
        errors=_errors(samples),
        ttft=spread([each.first_at - each.due_at for each in good]),
        itl=spread(gaps),
        e2e=spread([each.ended_at - each.due_at for each in good]),
        tokens_per_second=pieces * (tokens / seen if seen else 1.0) / seconds if seconds > 0 else 0.0,
        requests_per_second=answers / seconds if seconds > 0 else 0.0,
        prompt_tokens=_mean([each.prompt_tokens for each in good if each.prompt_tokens is not None]),
        output_tokens=tokens / len(good) if good else 0.0,
        tokens_counted_by="server" if by_server else "events",
        client=client,
        is_interrupted=is_interrupted,
    )
    late = sum(each.sent_at - each.due_at > LATE_S for each in samples if each.sent_at)
    return dataclasses.replace(made, warnings=(*notes, *_warnings(made, late)))


def _errors(samples: Sequence[Sample]) -> dict[str, Failures]:
    counts = collections.Counter(each.error for each in samples if each.error)
    examples: dict[str, str] = {}
    for each in samples:
        if each.error:
            examples.setdefault(each.error, each.message)
    return {name: Failures(count=count, example=examples[name]) for name, count in counts.most_common()}


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def _warnings(made: Figures, late: int) -> list[str]:
    """What a reader has to know before believing the figures."""
    client, cell = made.client, made.cell
    found = []
    if client.cpu_share > BUSY_SHARE:
        found.append(
            f"the client itself used {client.cpu_share:.0%} of a core and can use one: these may be its own limits, not the server's"
        )
    elif client.lag_s > LATE_S:
        found.append(
            f"the client was late by {client.lag_s * 1000:.0f} ms (99th percentile of its own timer): this machine is too busy to measure less"
        )
    if client.held_back:
        found.append(
            f"{client.held_back} requests waited in the client because {client.most_open} were open (--most-open); that wait is in their latency"
        )
    elif late and cell.mode is not Mode.CLOSED and late > made.requests / 100:
        found.append(
            f"{late} of {made.requests} requests were sent more than {LATE_S * 1000:.0f} ms late; that is in their latency"
        )
    if cell.lengths is not None and made.answered and made.output_tokens < 0.9 * cell.lengths.output:
        found.append(
            f"answers have {made.output_tokens:.0f} tokens on average, {cell.lengths.output} were asked for: the model ends sooner by itself"
        )
    if made.answered and made.tokens_counted_by == "events":
        found.append("the server does not count tokens: each event with text is taken for one")
    if cell.mode is not Mode.TRACE and made.seconds < SHORT * made.e2e.p50:
        found.append(
            f"the window is less than {SHORT} times as long as an answer, so REQ/S is rough; --duration makes it longer"
        )
    if 0 < made.answered < FEW:
        found.append(f"fewer than {FEW} answers: their 99th percentile is the longest of them")
    return found


def unscaled(figures: Figures, scale: float) -> Figures:
    """The figures of a server that was measured `scale` times slower than it stands for, in the time of what it stands for. What the client
    says of itself stays as it was.
    """

    def faster(spread: Spread) -> Spread:
        times = {name: getattr(spread, name) / scale for name in ("mean", "min", "max", "p50", "p95", "p99")}
        return dataclasses.replace(spread, curve=tuple(each / scale for each in spread.curve), **times)

    return dataclasses.replace(
        figures,
        seconds=figures.seconds / scale,
        ttft=faster(figures.ttft),
        itl=faster(figures.itl),
        e2e=faster(figures.e2e),
        tokens_per_second=figures.tokens_per_second * scale,
        requests_per_second=figures.requests_per_second * scale,
    )


def saturation(row: Sequence[Figures]) -> Figures | None:
    """Where the throughput of one model with one length stops growing: the lightest load that has 95 % of the most tokens per second, unless
    that is the heaviest one that was tried. `row` is sorted by level.
    """
    most = max((each.tokens_per_second for each in row), default=0.0)
    if most <= 0:
        return None
    found = next(each for each in row if each.tokens_per_second >= 0.95 * most)
    return found if found is not row[-1] else None
