"""The report: one HTML page without script, network or fonts, light and dark. Pure."""

import dataclasses
from collections.abc import Callable, Sequence
from html import escape

from llmop.cli.bench import loads, measures, plots, results, tables
from llmop.cli.bench.measures import Figures

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2126; --soft: #5b6570; --grid: #e3e7eb;
  --c0: #1f66b1; --c1: #b3491b; --c2: #1e7b47; --c3: #8a3c9e; --c4: #8d6a00; --c5: #0b7a85; --c6: #b02a5b; --c7: #555f6b; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181c; --ink: #e6eaee; --soft: #98a3af; --grid: #2c343c;
  --c0: #6cb0f5; --c1: #f0935f; --c2: #62c98d; --c3: #cf8fe2; --c4: #dcb84a; --c5: #55c3ce; --c6: #f27fa8; --c7: #a9b4bf; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1180px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; } h2 { font-size: 18px; margin-top: 32px; }
p, li, dl { max-width: 78ch; } .soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { padding: 4px 12px 4px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 600; } .word { text-align: left; }
dt { font-weight: 600; } dd { margin: 0 0 6px; }
figure { margin: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 20px; }
svg { width: 100%; height: auto; } svg.key { width: 28px; height: 12px; vertical-align: middle; margin-right: 6px; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 20px; max-width: none; }
text { fill: var(--ink); font: 12px system-ui, sans-serif; } .tick { fill: var(--soft); font-size: 11px; }
.head { font-weight: 600; } .end { text-anchor: end; } .mid { text-anchor: middle; }
.grid { stroke: var(--grid); fill: none; } .line { fill: none; stroke-width: 2; } .dashed.line { stroke-dasharray: 5 4; }
"""
_MEANINGS = (
    ("TTFT", "time from the moment that a request was due to the first event with text"),
    (
        "ITL",
        "time between two events with text of one answer; events that came in one read of the socket are 0 apart",
    ),
    ("E2E", "time from the moment that a request was due to the end of its answer"),
    (
        "closed loop",
        "so many streams, each of which asks again as soon as it was answered: due is when it asks, so a slow server is asked more seldom",
    ),
    (
        "open loop",
        "requests are due at a rate or as a trace has them, whatever came of earlier ones; a request that had to wait in the client waited too",
    ),
    (
        "percentiles",
        "each is a value that was seen (nearest rank); of failed requests nothing but their number is counted",
    ),
    ("tokens/s, requests/s", "what came within the window, which begins after the warm-up, by its length"),
    ("tokens", "as the server counted them; where it did not say, events with text"),
    (
        "saturated",
        "the lightest load with 95 % of the most tokens per second that were seen, unless that is the heaviest one",
    ),
)


def html(runs: Sequence[results.Run]) -> str:
    startups = [each for run in runs for each in run.startups]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>llmctl bench</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}{_colours()}</style></head><body><h1>llmctl bench</h1>",
        *(_conditions(run) for run in runs),
    ]
    if any(run.figures for run in runs):
        parts.append("<h2>Figures</h2>" + _table(tables.of_figures(runs)))
        parts.append(f'<p class="soft">{escape(tables.LEGEND)}, in milliseconds.</p>')
    if remarks := tables.remarks(runs):
        parts.append("<h2>What to know before believing them</h2><ul>")
        parts += [f"<li>{escape(each)}</li>" for each in remarks]
        parts.append("</ul>")
    rows = tables.rows_of(runs)
    for title, kinds in (
        ("Closed loop", (loads.Mode.CLOSED,)),
        ("Open loop", (loads.Mode.POISSON, loads.Mode.CONSTANT)),
    ):
        if chosen := [(name, row) for name, row in rows if row[0].cell.mode in kinds]:
            parts.append(_by_level(title, chosen, is_closed=kinds[0] is loads.Mode.CLOSED))
    if chosen := [(name, row) for name, row in rows if row[0].cell.mode is loads.Mode.TRACE]:
        parts.append(_traces(chosen))
    if startups:
        parts.append("<h2>From apply to the first token</h2>" + _table(tables.of_startups(startups)))
        parts.append('<p class="soft">Median seconds after the apply was sent.</p>')
    parts.append("<h2>Words</h2><dl>")
    parts += [f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in _MEANINGS]
    return "".join([*parts, "</dl></body></html>\n"])


def _colours() -> str:
    return "".join(
        f".c{each}.line {{ stroke: var(--c{each}); }} .c{each}.mark {{ fill: var(--c{each}); }}\n"
        for each in range(plots.COLOURS)
    )


def _conditions(run: results.Run) -> str:
    known = run.conditions
    label = f"<strong>{escape(run.label)}</strong>: " if run.label else ""
    return (
        f'<p class="soft">{label}{escape(known.target)} ({escape(known.api)}), {escape(known.at)}, warm-up {known.warm_up_s:g} s, '
        f"seed {known.seed}. Client: llmctl {escape(known.version)}, Python {escape(known.python)}, Linux {escape(known.kernel)}, "
        f"{known.cpus} CPUs, load {known.load_average:.2f} before.</p>"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns whose cells are words stand left."""
    header, *body = rows
    words = {
        index
        for index, _ in enumerate(header)
        if any(not any(letter.isdigit() for letter in row[index]) and row[index] != "-" for row in body)
        or header[index] in ("MODEL", "RUN", "LENGTHS", "DEPLOYMENT")
    }

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=word' if index in words else ''}>{escape(cell)}</{tag}>"
            for index, cell in enumerate(cells)
        )

    lines = [f"<tr>{line('td', row)}</tr>" for row in body]
    return f'<div class="wide"><table><tr>{line("th", header)}</tr>{"".join(lines)}</table></div>'


def _by_level(title: str, rows: Sequence[tuple[str, list[Figures]]], *, is_closed: bool) -> str:
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

    charts = [
        latency("Time to first token", lambda each: each.ttft),
        latency("Between tokens", lambda each: each.itl),
        latency("End to end", lambda each: each.e2e),
        rate("Tokens", "tokens/s", lambda each: each.tokens_per_second, is_ringed=True),
        rate("Answers", "requests/s", lambda each: each.requests_per_second),
    ]
    note = '<p class="soft">Latencies: whole lines p50, dashed lines p99. A ring: saturated.</p>'
    return f"<h2>{title}</h2>{_legend([name for name, _ in rows])}{note}{_charts(charts)}"


def _traces(rows: Sequence[tuple[str, list[Figures]]]) -> str:
    series = [
        (f"{name} {tables.level(each.cell)}", each) for name, row in rows for each in row if each.e2e.count
    ]

    def chart(title: str, of: Callable[[Figures], measures.Spread]) -> plots.Chart:
        lines = tuple(
            plots.Line(
                name=name,
                number=number,
                points=tuple(zip(measures.CURVE, (value * 1000 for value in of(each).curve), strict=True)),
            )
            for number, (name, each) in enumerate(series)
            if of(each).count
        )
        return plots.Chart(title=title, x="percent of requests", y="ms", lines=lines)

    charts = [
        chart("Time to first token", lambda each: each.ttft),
        chart("Between tokens", lambda each: each.itl),
        chart("End to end", lambda each: each.e2e),
    ]
    note = '<p class="soft">So many percent of the requests took at most so long.</p>'
    return f"<h2>Traces</h2>{_legend([name for name, _ in series])}{note}{_charts(charts)}"


def _legend(names: Sequence[str]) -> str:
    items = "".join(f"<li>{plots.mark(number)}{escape(name)}</li>" for number, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def _charts(charts: Sequence[plots.Chart]) -> str:
    return f'<div class="plots">{"".join(f"<figure>{text}</figure>" for each in charts if (text := plots.svg(each)))}</div>'
