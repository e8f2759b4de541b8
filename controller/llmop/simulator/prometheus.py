"""Prometheus' text form, version 0.0.4: families with a help and a type, and below them their series.

Labels are written by the caller, as they stand between the braces: `method="prefill"`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(Protocol):
    """One name with its series; no lines at all as long as it has none."""

    def lines(self) -> list[str]: ...


class Counter:
    """Sums that only grow. `name` is written as it is, with or without `_total`; `start` are series that begin with 0."""

    def __init__(self, name: str, help_text: str, start: Iterable[str] = ()) -> None:
        self._name = name
        self._help = help_text
        self._values: dict[str, float] = dict.fromkeys(start, 0)

    def add(self, labels: str = "", amount: float = 1) -> None:
        self._values[labels] = self._values.get(labels, 0) + amount

    def lines(self) -> list[str]:
        return _plain(self._name, self._help, "counter", self._values)


class Gauge:
    """Levels."""

    def __init__(self, name: str, help_text: str) -> None:
        self._name = name
        self._help = help_text
        self._values: dict[str, float] = {}

    def set(self, value: float, labels: str = "") -> None:
        self._values[labels] = value

    def lines(self) -> list[str]:
        return _plain(self._name, self._help, "gauge", self._values)


def rust_number(value: float) -> str:
    """As Rust's Display writes an f64: the shortest digits, never an exponent, no `.0`."""
    return format(Decimal(repr(float(value))), "f").removesuffix(".0")


def python_number(value: float) -> str:
    """As prometheus_client writes a bucket's bound: `1.0`, `0.3`."""
    return repr(float(value))


class Histogram:
    """Amounts in buckets. `le` writes a bound as the client library of the engine does."""

    def __init__(
        self,
        name: str,
        help_text: str,
        bounds: Sequence[float],
        le: Callable[[float], str],
        start: Iterable[str] = (),
    ) -> None:
        self._name = name
        self._help = help_text
        self._bounds = tuple(bounds)
        self._le = tuple(le(bound) for bound in bounds)
        self._series: dict[str, list[float]] = {labels: self._empty() for labels in start}

    def observe(self, value: float, labels: str = "", times: int = 1) -> None:
        """Add `times` the same amount."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = self._empty()
        series[bisect_left(self._bounds, value)] += times
        series[-1] += value * times

    def lines(self) -> list[str]:
        if not self._series:
            return []
        lines = _head(self._name, self._help, "histogram")
        for labels, (*buckets, total) in self._series.items():
            before = f"{labels}," if labels else ""
            below = 0.0
            for bound, amount in zip((*self._le, "+Inf"), buckets, strict=True):
                below += amount
                lines.append(f'{self._name}_bucket{{{before}le="{bound}"}} {_value(below)}')
            lines.append(f"{_series(f'{self._name}_sum', labels)} {_value(total)}")
            lines.append(f"{_series(f'{self._name}_count', labels)} {_value(below)}")
        return lines

    def _empty(self) -> list[float]:
        """A count for each bucket, one for what is above all bounds, and the sum."""
        return [0] * (len(self._bounds) + 2)


class ConstantSummary:
    """Quantiles of amounts that are all the same: what a library shows of a histogram that was given no buckets."""

    def __init__(self, name: str, help_text: str, quantiles: Sequence[float], constant: float) -> None:
        self._name = name
        self._help = help_text
        self._quantiles = quantiles
        self._constant = constant
        self._count = 0

    def observe(self, times: int) -> None:
        self._count += times

    def lines(self) -> list[str]:
        if not self._count:
            return []
        return [
            *_head(self._name, self._help, "summary"),
            *(
                f'{self._name}{{quantile="{rust_number(quantile)}"}} {_value(self._constant)}'
                for quantile in self._quantiles
            ),
            f"{self._name}_sum {_value(self._constant * self._count)}",
            f"{self._name}_count {self._count}",
        ]


def text(families: Iterable[Family]) -> str:
    """The answer of GET /metrics."""
    return "".join(f"{line}\n" for family in families for line in family.lines())


def label(**labels: str) -> str:
    """Labels between the braces, values escaped."""
    return ",".join(
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for name, value in labels.items()
    )


def _plain(name: str, help_text: str, kind: str, values: dict[str, float]) -> list[str]:
    if not values:
        return []
    return [
        *_head(name, help_text, kind),
        *(f"{_series(name, labels)} {_value(value)}" for labels, value in values.items()),
    ]


def _series(name: str, labels: str) -> str:
    return f"{name}{{{labels}}}" if labels else name


def _value(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _head(name: str, help_text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
