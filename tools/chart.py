"""Line charts as SVG text: panels side by side, one line a name, the same places along the bottom of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 44, 66
"""Around the lines, for what is written: in pixels, as everything here."""
GRID_LINES: Final = 4


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: `lines` has a value, or None, for each of `places`; `below` says what these are."""

    title: str
    below: str
    places: Sequence[str]
    lines: Mapping[str, Sequence[float | None]]

    @property
    def top(self) -> float:
        """The value at the upper edge: the least round one that no value exceeds."""
        most = max((value for line in self.lines.values() for value in line if value is not None), default=0) or 1
        magnitude = 10.0 ** math.floor(math.log10(most))
        return next(magnitude * step for step in (1, 2, 4, 6, 8, 10) if magnitude * step >= most)

    def x(self, place: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (place + 0.5) / len(self.places)

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - max(0.0, value) / self.top)


def draw(panels: Sequence[Panel]) -> str:
    """A whole SVG document."""
    width = WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}"',
        ' font-family="system-ui, sans-serif" font-size="11" fill="#24292f">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * WIDTH} 0)">', *_grid(panel), *_lines(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'


def _grid(panel: Panel) -> Iterable[str]:
    yield _text(LEFT, 20, panel.title, 'font-size="13" font-weight="600"')
    for step in range(GRID_LINES + 1):
        value = panel.top * step / GRID_LINES
        y = panel.y(value)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>'
        yield _text(LEFT - 6, y + 4, f"{value:,.0f}" if panel.top >= 20 else f"{value:.2f}", 'text-anchor="end"')
    for number, place in enumerate(panel.places):
        yield _text(panel.x(number), HEIGHT - BOTTOM + 16, place, 'text-anchor="middle"')
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 30, panel.below, 'text-anchor="middle" fill="#57606a"')


def _lines(panel: Panel) -> Iterable[str]:
    space = (WIDTH - LEFT) / max(1, len(panel.lines))
    for number, (name, values) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [(panel.x(at), panel.y(value)) for at, value in enumerate(values) if value is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
        yield _text(LEFT + number * space, HEIGHT - 14, name, f'fill="{colour}" font-weight="600"')
