"""The plots of a closed loop as one picture, to be shown elsewhere: SVG without script, network or fonts, light and dark. Pure."""

from collections.abc import Sequence
from html import escape

from llmop.cli.bench import charts, loads, plots, results, tables

_SHOWN = ("Time to first token", "Between tokens", "End to end", "Tokens")
_GAP = 16
_LEGEND = 26  # pixels of a line
_COLUMNS = 2


def svg(runs: Sequence[results.Run]) -> str:
    """ "" where there is no closed loop."""
    rows = [(name, row) for name, row in tables.rows_of(runs) if row[0].cell.mode is loads.Mode.CLOSED]
    shown = [each for each in charts.by_level(rows, is_closed=True) if each.title in _SHOWN]
    made = [text for each in shown if (text := plots.svg(each))]
    if not made:
        return ""
    across, down = plots.WIDTH + _GAP, plots.HEIGHT + _GAP
    top = _GAP + _LEGEND * -(-len(rows) // _COLUMNS)
    width = _GAP + across * _COLUMNS
    height = top + down * -(-len(made) // _COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<style>{plots.STYLE}</style><rect width="{width}" height="{height}" style="fill: var(--ground)"/>',
    ]
    for number, (name, _) in enumerate(rows):
        x, y = _GAP + across * (number % _COLUMNS), _GAP + _LEGEND * (number // _COLUMNS)
        key = plots.mark(number).replace("<svg ", f'<svg x="{x}" y="{y}" width="28" height="12" ', 1)
        parts.append(f'{key}<text x="{x + 36}" y="{y + 10}">{escape(name)}</text>')
    for number, text in enumerate(made):
        x, y = _GAP + across * (number % _COLUMNS), top + down * (number // _COLUMNS)
        place = f'<svg x="{x}" y="{y}" width="{plots.WIDTH}" height="{plots.HEIGHT}" '
        parts.append(text.replace("<svg ", place, 1))
    return "".join([*parts, "</svg>\n"])
