"""What the options of `llmctl bench run` mean; all that is wrong with them is said at once."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from llmop.cli.bench import loads, traces
from llmop.cli.bench.loads import Mode
from llmop.cli.errors import UsageError

_CONCURRENCY = "1,2,4,8,16,32,64,128"
_LENGTHS = "128:64"
_DURATION_S = 20.0
_WARM_UP_S = 2.0
_LONGEST_S = 86_400.0
_MOST_SPEED = 1000
_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """The options as they were written; None where they were not."""

    models: tuple[str, ...]
    gateway_url: str | None
    url: str | None
    key_file: str | None
    api: str
    concurrency: str | None
    rate: str | None
    arrivals: str | None
    trace: str | None
    speed: str | None
    trace_start: float | None
    lengths: str | None
    duration: float | None
    warm_up: float | None
    requests: int | None
    context_length: int | None
    most_open: int
    timeout: float
    ignore_eos: bool
    time_scale: float | None
    seed: int | None
    label: str
    folder: str | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What they mean. `traces` has one for each speed; without `seconds` (inf) it is played to its end."""

    mode: Mode
    levels: tuple[float, ...]
    lengths: tuple[loads.Lengths, ...]
    traces: Mapping[float, traces.Trace]
    warm_up_s: float
    seconds: float


def understand(given: Given, environ: Mapping[str, str]) -> Wanted:
    """Raises UsageError with all that is wrong."""
    problems: list[str] = []
    mode = _mode(given, problems)
    levels = _read(problems, *_levels(given, mode))
    shapes = _read(problems, "--lengths", loads.lengths, given.lengths or _LENGTHS)
    endless = math.inf if mode is Mode.TRACE else _DURATION_S
    seconds = given.duration if given.duration is not None else endless
    warm_up_s = given.warm_up if given.warm_up is not None else _WARM_UP_S
    if not (0 < seconds <= _LONGEST_S or seconds == math.inf):
        problems.append("--duration must be more than 0 and at most a day")
    if not 0 <= warm_up_s <= _LONGEST_S:
        problems.append("--warm-up must be 0 or more and at most a day")
    if given.timeout <= 0:
        problems.append("--timeout must be more than 0")
    if levels and mode in (Mode.POISSON, Mode.CONSTANT):
        due = max(levels) * (seconds + warm_up_s)
        if due > loads.MOST_ARRIVALS:
            problems.append(
                f"--rate {max(levels):g} for {seconds:g}s is {due:,.0f} requests; one measurement has at most {loads.MOST_ARRIVALS:,}"
            )
    played = _traces(given, environ, levels or (), seconds, problems)
    if problems:
        raise UsageError("\nerror: ".join(problems))
    assert levels is not None and shapes is not None
    return Wanted(
        mode=mode,
        levels=tuple(levels),
        lengths=tuple(shapes),
        traces=played,
        warm_up_s=0.0 if mode is Mode.TRACE else warm_up_s,
        seconds=seconds,
    )


def _mode(given: Given, problems: list[str]) -> Mode:
    ways = [flag for flag in ("concurrency", "rate", "trace") if getattr(given, flag) is not None]
    if len(ways) > 1:
        problems.append(f"--{ways[0]} and --{ways[1]} are different loops; give one of them")
    mode = Mode.CLOSED
    if given.trace is not None:
        mode = Mode.TRACE
    elif given.rate is not None:
        mode = Mode(given.arrivals or Mode.POISSON)
    if given.url is not None and given.gateway_url is not None:
        problems.append("--url and --gateway are two addresses; give one of them")
    rates = (Mode.POISSON, Mode.CONSTANT)
    belongs: Sequence[tuple[str, object, Sequence[Mode], str]] = (
        ("arrivals", given.arrivals, rates, "--rate"),
        ("speed", given.speed, (Mode.TRACE,), "--trace"),
        ("trace-start", given.trace_start, (Mode.TRACE,), "--trace"),
        ("context-length", given.context_length, (Mode.TRACE,), "--trace"),
        ("requests", given.requests, (Mode.CLOSED,), "--concurrency"),
        ("time-scale", given.time_scale, (Mode.CLOSED,), "--concurrency"),
        ("lengths", given.lengths, (Mode.CLOSED, *rates), "--concurrency and --rate"),
        ("warm-up", given.warm_up, (Mode.CLOSED, *rates), "--concurrency and --rate"),
    )
    problems += [
        f"--{flag} belongs to {owner}"
        for flag, value, modes, owner in belongs
        if value is not None and mode not in modes
    ]
    return mode


def _levels(given: Given, mode: Mode) -> tuple[str, Callable[[str], Sequence[float]], str]:
    """The flag, how it is read, and its text."""
    if mode is Mode.CLOSED:
        return "--concurrency", loads.streams, given.concurrency or _CONCURRENCY
    if mode is Mode.TRACE:
        return "--speed", lambda text: loads.numbers(text, most=_MOST_SPEED), given.speed or "1"
    return "--rate", lambda text: loads.numbers(text, most=loads.MOST_RATE), given.rate or ""


def _read(problems: list[str], flag: str, parse: Callable[[str], _Value], text: str) -> _Value | None:
    try:
        return parse(text)
    except loads.LoadError as error:
        problems.append(f"{flag} {error}")
        return None


def _traces(
    given: Given, environ: Mapping[str, str], speeds: Sequence[float], seconds: float, problems: list[str]
) -> dict[float, traces.Trace]:
    if given.trace is None or problems:
        return {}
    try:
        path = traces.find(given.trace, environ)
        return {
            speed: traces.read(
                path,
                speed=speed,
                seconds=seconds,
                start=given.trace_start or 0.0,
                most_tokens=given.context_length or 0,
            )
            for speed in speeds
        }
    except traces.TraceError as error:
        problems.append(f"--trace {error}")
        return {}
