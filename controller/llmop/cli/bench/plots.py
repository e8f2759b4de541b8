"""Line charts as SVG text: no script, no font, no colour of their own; the page's styles make them light or dark. Pure."""

import dataclasses
import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 30, 44
COLOURS = 8
_COLOURS = "\n".join(
    f".c{each}.line {{ stroke: var(--c{each}); }} .c{each}.mark {{ fill: var(--c{each}); }}"
    for each in range(COLOURS)
)
STYLE = f"""
:root {{ color-scheme: light dark; --ground: #fff; --ink: #1c2126; --soft: #5b6570; --grid: #e3e7eb;
  --c0: #1f66b1; --c1: #b3491b; --c2: #1e7b47; --c3: #8a3c9e; --c4: #8d6a00; --c5: #0b7a85; --c6: #b02a5b; --c7: #555f6b; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #14181c; --ink: #e6eaee; --soft: #98a3af; --grid: #2c343c;
  --c0: #6cb0f5; --c1: #f0935f; --c2: #62c98d; --c3: #cf8fe2; --c4: #dcb84a; --c5: #55c3ce; --c6: #f27fa8; --c7: #a9b4bf; }} }}
text {{ fill: var(--ink); font: 12px system-ui, sans-serif; }} .tick {{ fill: var(--soft); font-size: 11px; }}
.head {{ font-weight: 600; }} .end {{ text-anchor: end; }} .mid {{ text-anchor: middle; }}
.grid {{ stroke: var(--grid); fill: none; }} .line {{ fill: none; stroke-width: 2; }} .dashed.line {{ stroke-dasharray: 5 4; }}
{_COLOURS}
"""
_MARKS = ("circle", "square", "diamond", "triangle")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """`number` chooses colour and mark; a dashed line belongs to the same thing as the whole one of its number. The points at `ringed`
    have a ring, whose meaning is `ring`.
    """

    name: str
    number: int
    points: tuple[tuple[float, float], ...]
    is_dashed: bool = False
    ringed: float | None = None
    ring: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    is_log_x: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Axis:
    least: float
    most: float
    is_log: bool
    begin: float  # in pixels
    end: float

    def place(self, value: float) -> float:
        least, most, value = (
            (math.log10(each) for each in (self.least, self.most, value))
            if self.is_log
            else (self.least, self.most, value)
        )
        share = (value - least) / (most - least) if most > least else 0.5
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        if not self.is_log:
            step = _step((self.most - self.least) / 5)
            first = math.ceil(self.least / step - 1e-9)
            return [
                round(number * step, 10) for number in range(first, math.floor(self.most / step + 1e-9) + 1)
            ]
        decades = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        marks = (1,) if len(decades) > 4 else (1, 2, 5)
        found = [mark * 10.0**decade for decade in decades for mark in marks]
        return [each for each in found if self.least * 0.999 <= each <= self.most * 1.001]


def svg(chart: Chart) -> str:
    """Values that a logarithm cannot show are left out."""
    points = [point for line in chart.lines for point in line.points]
    xs = [x for x, _ in points if x > 0 or not chart.is_log_x]
    ys = [y for _, y in points]
    if not xs:
        return ""
    positive = [y for y in ys if y > 0]
    is_log_y = bool(positive) and max(positive) > 30 * min(positive)
    across = _Axis(min(xs), max(xs), chart.is_log_x, _LEFT, WIDTH - _RIGHT)
    upper = max(ys) if max(ys) > 0 else 1.0
    up = (
        _Axis(min(positive) / 1.15, upper * 1.15, True, HEIGHT - _BOTTOM, _TOP)
        if is_log_y
        else _Axis(0.0, upper * 1.06, False, HEIGHT - _BOTTOM, _TOP)
    )
    scale = " (log)" if is_log_y else ""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">',
        f"<title>{escape(chart.title)}</title>",
        f'<text class="head" x="{_LEFT}" y="16">{escape(chart.title)}, {escape(chart.y)}{scale}</text>',
        *_grid(
            across, up, sorted(set(xs)) if chart.is_log_x else across.ticks(), chart.x, is_log=chart.is_log_x
        ),
    ]
    for line in chart.lines:
        shown = [(x, y) for x, y in line.points if (y > 0 or not is_log_y) and (x > 0 or not chart.is_log_x)]
        parts += _line(line, [(across.place(x), up.place(y)) for x, y in shown], shown, chart)
    return "".join([*parts, "</svg>"])


def _grid(across: _Axis, up: _Axis, x_ticks: Sequence[float], x_name: str, *, is_log: bool) -> list[str]:
    parts = []
    for value in up.ticks():
        y = up.place(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 6}" y="{y + 4:.1f}">{number(value)}</text>')
    last = -math.inf
    for value in x_ticks:
        x = across.place(value)
        if x - last < 26:  # as wide as a label
            continue
        last = x
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{HEIGHT - _BOTTOM + 16}">{number(value)}</text>')
    scale = " (log)" if is_log else ""
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="tick mid" x="{middle:.1f}" y="{HEIGHT - 8}">{escape(x_name)}{scale}</text>')
    return parts


def _line(
    line: Line, places: Sequence[tuple[float, float]], values: Sequence[tuple[float, float]], chart: Chart
) -> list[str]:
    if not places:
        return []
    style = f"c{line.number % COLOURS}" + (" dashed" if line.is_dashed else "")
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f'<path class="line {style}" d="{path}"/>']
    for (x, y), (at, value) in zip(places, values, strict=True):
        words = escape(f"{line.name}: {number(value)} {chart.y} at {number(at)} {chart.x}")
        parts.append(f'<g class="mark {style}">{_mark(line.number, x, y)}<title>{words}</title></g>')
        if at == line.ringed:
            parts.append(
                f'<circle class="line {style}" cx="{x:.1f}" cy="{y:.1f}" r="8"><title>{escape(line.ring)}</title></circle>'
            )
    return parts


def _mark(number: int, x: float, y: float) -> str:
    match _MARKS[number % len(_MARKS)]:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
        case "square":
            return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
        case "diamond":
            return f'<path d="M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/>'
        case _:
            return f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z"/>'


def mark(number: int) -> str:
    """A small picture for a legend."""
    return (
        f'<svg class="key" viewBox="0 0 28 12" aria-hidden="true"><path class="line c{number % COLOURS}" d="M2 6H26"/>'
        f'<g class="mark c{number % COLOURS}">{_mark(number, 14, 6)}</g></svg>'
    )


def number(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _step(least: float) -> float:
    """A round number, `least` or little more."""
    size = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(size * each for each in (1, 2, 2.5, 5, 10) if size * each >= least * 0.999)
