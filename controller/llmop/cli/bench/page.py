"""The report: one HTML page without script, network or fonts, light and dark. Pure."""

from collections.abc import Callable, Sequence
from html import escape

from llmop.cli.bench import charts, loads, measures, plots, results, tables
from llmop.cli.bench.measures import Figures

_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1180px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
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
        f"<style>{plots.STYLE}{_STYLE}</style></head><body><h1>llmctl bench</h1>",
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
        parts.append(_table(tables.of_steps(startups)))
        parts.append('<p class="soft">Median seconds from the step before.</p>')
    parts.append("<h2>Words</h2><dl>")
    parts += [f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in _MEANINGS]
    return "".join([*parts, "</dl></body></html>\n"])


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
    note = '<p class="soft">Latencies: whole lines p50, dashed lines p99. A ring: saturated.</p>'
    return f"<h2>{title}</h2>{_legend([name for name, _ in rows])}{note}{_charts(charts.by_level(rows, is_closed=is_closed))}"


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

    shown = [
        chart("Time to first token", lambda each: each.ttft),
        chart("Between tokens", lambda each: each.itl),
        chart("End to end", lambda each: each.e2e),
    ]
    note = '<p class="soft">So many percent of the requests took at most so long.</p>'
    return f"<h2>Traces</h2>{_legend([name for name, _ in series])}{note}{_charts(shown)}"


def _legend(names: Sequence[str]) -> str:
    items = "".join(f"<li>{plots.mark(number)}{escape(name)}</li>" for number, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def _charts(shown: Sequence[plots.Chart]) -> str:
    return f'<div class="plots">{"".join(f"<figure>{text}</figure>" for each in shown if (text := plots.svg(each)))}</div>'
