"""Results as tables: rows of text that the terminal and the page share. Pure."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from llmop.cli.bench import loads, measures, results
from llmop.cli.bench.measures import Figures, Spread
from llmop.cli.bench.startup import STEPS, Startup

_NONE = "-"
HEADER = ("MODEL", "LENGTHS", "LOAD", "ANSWERS", "FAILED", "TTFT-MS", "ITL-MS", "E2E-MS", "TOKENS/S", "REQ/S")
LEGEND = "TTFT, ITL, E2E: p50/p95/p99 of the time to the first token, between tokens, and to the end"


def of_figures(runs: Sequence[results.Run]) -> list[list[str]]:
    """A header and a row per measurement; several runs are told apart by a first column."""
    has_labels = any(run.label for run in runs)
    rows = [["RUN", *HEADER] if has_labels else list(HEADER)]
    for label, each in results.all_figures(runs):
        row = [
            each.cell.model,
            str(each.cell.lengths or each.cell.trace),
            level(each.cell),
            str(each.answered),
            str(each.failed),
            milliseconds(each.ttft),
            milliseconds(each.itl),
            milliseconds(each.e2e),
            f"{each.tokens_per_second:.1f}",
            f"{each.requests_per_second:.2f}",
        ]
        rows.append([label or _NONE, *row] if has_labels else row)
    return rows


def level(cell: loads.Cell) -> str:
    match cell.mode:
        case loads.Mode.CLOSED:
            return f"{cell.level:g}"
        case loads.Mode.TRACE:
            return f"x{cell.level:g}"
        case _:
            return f"{cell.level:g}/s"


def milliseconds(spread: Spread) -> str:
    """p50/p95/p99."""
    if not spread.count:
        return _NONE
    return "/".join(_digits(value * 1000) for value in (spread.p50, spread.p95, spread.p99))


def _digits(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def remarks(runs: Sequence[results.Run]) -> list[str]:
    """Errors by class, warnings, and where the throughput stops growing: a sentence each, with all places where it is true."""
    found: dict[str, dict[tuple[str, loads.Cell], list[float]]] = {}
    for label, each in results.all_figures(runs):
        cell = each.cell
        run = f"{label}: " if label not in ("", cell.model) else ""
        place = (f"{run}{cell.model}", dataclasses.replace(cell, level=0))
        sentences = [f"interrupted after {each.seconds:.1f}s"] if each.is_interrupted else []
        for kind, failures in each.errors.items():
            said = f", such as: {failures.example}" if failures.example else ""
            sentences.append(f"{failures.count} failed with {kind}{said}")
        for sentence in (*sentences, *each.warnings):
            found.setdefault(sentence, {}).setdefault(place, []).append(cell.level)
    lines = [
        f"{run.label + ': ' if run.label else ''}the server was {run.conditions.time_scale:g} times slower than what it stands for; "
        "times and rates are of what it stands for (--time-scale)"
        for run in runs
        if run.figures and run.conditions.time_scale != 1
    ]
    lines += [
        "; ".join(f"{name} {cell.at(levels)}" for (name, cell), levels in places.items()) + f": {sentence}"
        for sentence, places in found.items()
    ]
    for name, row in rows_of(runs):
        if end := measures.saturation(row):
            most = max(each.tokens_per_second for each in row)
            lines.append(
                f"{name}: saturated at {level(end.cell)}, with {end.tokens_per_second:.1f} of at most {most:.1f} tokens/s"
            )
    return lines


def rows_of(runs: Iterable[results.Run]) -> list[tuple[str, list[Figures]]]:
    """What belongs to one line of a plot, by level, with its name: run, model, lengths, and the way of arrival where it is a rate."""
    found: dict[str, list[Figures]] = {}
    for label, each in results.all_figures(runs):
        cell = each.cell
        words = [label, cell.model, str(cell.lengths or cell.trace)]
        if cell.mode in (loads.Mode.POISSON, loads.Mode.CONSTANT):
            words.append(str(cell.mode))
        # A run that is called like its model is not named twice.
        found.setdefault(" ".join(word for word in dict.fromkeys(words) if word), []).append(each)
    return [(name, sorted(row, key=lambda each: each.cell.level)) for name, row in found.items()]


def of_startups(startups: Sequence[Startup]) -> list[list[str]]:
    """A row per deployment: the median second of each step after the apply."""
    return _startup_rows(startups, lambda each: each.steps)


def of_steps(startups: Sequence[Startup]) -> list[list[str]]:
    """A row per deployment: the median seconds from the step before to each step; what a queue takes is in one of them alone."""
    return _startup_rows(startups, _taken)


def _taken(each: Startup) -> dict[str, float]:
    known = [step for step in STEPS if step in each.steps]
    before = [0.0, *(each.steps[step] for step in known)]
    return {step: each.steps[step] - then for step, then in zip(known, before, strict=False)}


def _startup_rows(
    startups: Sequence[Startup], of: Callable[[Startup], Mapping[str, float]]
) -> list[list[str]]:
    if not startups:
        return []
    rows = [["DEPLOYMENT", "CONTAINER", "ROUNDS", *(step.upper() for step in STEPS)]]
    for name in dict.fromkeys(each.deployment for each in startups):
        mine = [each for each in startups if each.deployment == name]
        seconds = [of(each) for each in mine]
        cells = []
        for step in STEPS:
            values = [each[step] for each in seconds if step in each]
            cells.append(f"{statistics.median(values):.2f}" if values else _NONE)
        rows.append([name, "yes" if mine[0].image else "no", str(len(mine)), *cells])
    return rows
