"""What every benchmark shares: rounds that alternate between the contestants, medians, one JSON file and one table.

A benchmark is a module `hack/bench/<name>.py` with a function `run() -> Result`. Machines are noisy: what counts is the ratio to a
yardstick measured in the same run, never an absolute figure alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "bench"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """`ours` and `peers` are medians in `unit`; `more` are further figures, `conditions` whatever a reader has to know."""

    name: str
    unit: str
    ours: float
    peers: Mapping[str, float]
    higher_is_better: bool
    more: Mapping[str, object] = dataclasses.field(default_factory=dict)
    conditions: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def ratios(self) -> dict[str, float]:
        """How many times better ours is; above 1 is better."""
        if self.higher_is_better:
            return {peer: self.ours / value for peer, value in self.peers.items()}
        return {peer: value / self.ours for peer, value in self.peers.items()}


def interleave(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """One value per contestant and round. The order turns round by round, so that nobody always runs on a machine that
    somebody else has warmed up.
    """
    names = list(contestants)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            values[name].append(contestants[name]())
    return values


def medians(values: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(series) for name, series in values.items()}


def machine() -> dict[str, object]:
    """The conditions that every benchmark states."""
    return {
        "cpus": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def write(result: Result) -> Path:
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{result.name}.json"
    content = {
        "name": result.name,
        "unit": result.unit,
        "ours": result.ours,
        "peers": dict(result.peers),
        "ratios": result.ratios(),
        "more": dict(result.more),
        "conditions": dict(result.conditions),
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def table(results: list[Result]) -> str:
    """One row per benchmark and peer."""
    rows = [("benchmark", "ours", "peer", "its value", "ratio", "unit")]
    for result in results:
        for peer, ratio in result.ratios().items():
            rows.append(
                (
                    result.name,
                    f"{result.ours:.4g}",
                    peer,
                    f"{result.peers[peer]:.4g}",
                    f"{ratio:.2f} x",
                    result.unit,
                )
            )
        if not result.peers:
            rows.append((result.name, f"{result.ours:.4g}", "-", "-", "-", result.unit))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
