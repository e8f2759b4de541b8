"""The plane as an SVG: replica hours to the right, the share of requests within the SLO upwards; one panel per queue wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 420, 300, 48
FLOOR = 0.97  # of the share: what serves fewer in time is of no use to anybody
COLOURS = {"ours": "#0b7285", "knative-kpa": "#e8590c", "hpa-v2": "#5f3dc4", "kubeai-mean": "#868e96"}


def write(
    path: Path, curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], bound: float
) -> None:
    """`bound` is where the clairvoyant one serves everybody."""
    hours = [each for panel in curves.values() for points in panel.values() for each, _ in points]
    most, fewest = 1.05 * max(hours), 0.95 * min(bound, *hours)
    floor = FLOOR

    def at(hours: float, within: float) -> tuple[float, float]:
        """What lies below the floor is drawn at the floor."""
        across = MARGIN + (hours - fewest) / (most - fewest) * (WIDTH - 2 * MARGIN)
        return across, HEIGHT - MARGIN - max(0.0, within - floor) / (1 - floor) * (HEIGHT - 2 * MARGIN)

    parts = []
    for number, (wait, panel) in enumerate(curves.items()):
        parts.append(f'<g transform="translate({number * WIDTH},0)">')
        parts.append(f'<text x="{MARGIN}" y="24" font-weight="bold">queue wait {wait}</text>')
        left, bottom = at(fewest, floor)
        right, top = at(most, 1.0)
        parts.append(f'<path d="M{left},{top}V{bottom}H{right}" fill="none" stroke="#444"/>')
        parts.extend(
            f'<text x="4" y="{at(fewest, share)[1] + 4:.0f}">{100 * share:.1f} %</text>'
            for share in (floor, (1 + floor) / 2, 1.0)
        )
        parts.extend(
            f'<text x="{at(hours, floor)[0] - 14:.0f}" y="{bottom + 16:.0f}">{hours:.0f} h</text>'
            for hours in (fewest, (fewest + most) / 2, most)
        )
        across = at(bound, 1.0)[0]
        parts.append(
            f'<path d="M{across:.1f},{top}V{bottom}" stroke="#bbb" stroke-dasharray="4 3"><title>clairvoyant</title></path>'
        )
        for row, (name, points) in enumerate(panel.items()):
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in sorted(points)))
            parts.append(
                f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" stroke-width="{3 if name == "ours" else 1.5}"/>'
            )
            if number == 0:
                label = HEIGHT - MARGIN - 12 - 16 * row
                parts.append(f'<text x="{WIDTH - 130}" y="{label}" fill="{COLOURS[name]}">{name}</text>')
        parts.append("</g>")
    body = "\n".join(parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(curves)}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )
