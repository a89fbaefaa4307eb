"""Curves as SVG pictures that stand by themselves, for the report that a run leaves in its folder.

Pure functions of numbers; nothing here knows what the numbers are. (The page has plots of its own, which take their
colours from it.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 56, 40
_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5")
_MOST_POINTS = 400
Points = Sequence[tuple[float, float]]


def curves_svg(curves: Mapping[str, Points], *, title: str, x_label: str = "step") -> str:
    """One picture of all `curves`, each by its name through points (x, y) in order of x. Empty without two points."""
    drawn = {name: _thinned(points) for name, points in curves.items() if len(points) > 1}
    if not drawn:
        return ""
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    ticks = round_ticks(min(ys), max(ys))
    across = _scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    up = _scale(ticks[0], ticks[-1], HEIGHT - _BOTTOM, _TOP)
    parts = [_tick(value, _at(up, value)) for value in ticks]
    parts += [_text(_at(across, x), HEIGHT - _BOTTOM + 18, f"{x:g}", "middle") for x in (min(xs), max(xs))]
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
    for position, (name, points) in enumerate(drawn.items()):
        colour = _COLOURS[position % len(_COLOURS)]
        line = " ".join(f"{_at(across, x):.1f},{_at(up, y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        start = _LEFT + position * (WIDTH - _LEFT) / max(2, len(drawn))
        parts.append(f'<rect x="{start:.0f}" y="32" width="14" height="4" fill="{colour}"/>')
        parts.append(_text(start + 20, 38, name, "start"))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="12" '
        'font-family="sans-serif" fill="#333">'
    )
    back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><title>{escape(title)}</title>'
    named = f'<text x="{_LEFT}" y="20" font-size="15">{escape(title)}</text>'
    return "\n".join([head, back, named, *parts, "</svg>"]) + "\n"


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers, evenly apart, from at most `low` to at least `high`."""
    if high - low <= 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / (count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def _thinned(points: Points) -> Points:
    """At most so many points as can be told apart, the last one included."""
    every = math.ceil(len(points) / _MOST_POINTS)
    return [*points[:-1:every], points[-1]]


def _scale(low: float, high: float, start: float, end: float) -> tuple[float, float]:
    """(factor, offset) that lay [low, high] on [start, end]."""
    factor = (end - start) / ((high - low) or 1.0)
    return factor, start - low * factor


def _at(scale: tuple[float, float], value: float) -> float:
    return scale[0] * value + scale[1]


def _tick(value: float, y: float) -> str:
    line = f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e2e2"/>'
    return line + _text(_LEFT - 8, y + 4, f"{value:g}", "end")


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
