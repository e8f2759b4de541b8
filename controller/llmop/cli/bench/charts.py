"""Which lines a row of measurements by load has in which plot. Pure."""

import dataclasses
from collections.abc import Callable, Sequence

from llmop.cli.bench import measures, plots, tables
from llmop.cli.bench.measures import Figures


def by_level(rows: Sequence[tuple[str, list[Figures]]], *, is_closed: bool) -> list[plots.Chart]:
    """`rows` are lines with their names, sorted by level; whole lines are p50, dashed ones p99, a ring is where it is saturated."""
    x = "streams" if is_closed else "requests/s asked for"

    def latency(name: str, of: Callable[[Figures], measures.Spread]) -> plots.Chart:
        lines = []
        for number, (line, row) in enumerate(rows):
            seen = [each for each in row if of(each).count]
            for word, is_dashed in (("p50", False), ("p99", True)):
                points = tuple((each.cell.level, getattr(of(each), word) * 1000) for each in seen)
                lines.append(
                    plots.Line(name=f"{line} {word}", number=number, points=points, is_dashed=is_dashed)
                )
        return plots.Chart(title=name, x=x, y="ms", lines=tuple(lines), is_log_x=True)

    def rate(name: str, unit: str, of: Callable[[Figures], float], *, is_ringed: bool = False) -> plots.Chart:
        lines = []
        for number, (line, row) in enumerate(rows):
            end = measures.saturation(row) if is_ringed else None
            made = plots.Line(
                name=line, number=number, points=tuple((each.cell.level, of(each)) for each in row)
            )
            if end is not None:
                words = f"{line}: saturated at {tables.level(end.cell)}"
                made = dataclasses.replace(made, ringed=end.cell.level, ring=words)
            lines.append(made)
        return plots.Chart(title=name, x=x, y=unit, lines=tuple(lines), is_log_x=True)

    return [
        latency("Time to first token", lambda each: each.ttft),
        latency("Between tokens", lambda each: each.itl),
        latency("End to end", lambda each: each.e2e),
        rate("Tokens", "tokens/s", lambda each: each.tokens_per_second, is_ringed=True),
        rate("Answers", "requests/s", lambda each: each.requests_per_second),
    ]
