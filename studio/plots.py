"""Plots as pure functions of data: SVG and HTML that take their colours from the page, so they read in
light and in dark.

Curves for what changes over a training, stacked bars for what was collected by day, and plain bars for
counts. Empty data gives an empty string, so that the caller can say in words what is missing. Nothing here
knows where the data come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from studio.wording import safe

WIDTH, HEIGHT = 420, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 30


@dataclass(frozen=True)
class Curve:
    """A named line through points (x, y), in order of x."""

    name: str
    points: Sequence[tuple[float, float]]


def curve_of(rows: Sequence[Mapping[str, object]], key: str, name: str) -> Curve:
    """The metric `key` over the training step; rows without a number for it are left out."""
    points = [
        (float(step), float(value))
        for row in rows
        if isinstance(value := row.get(key), int | float) and isinstance(step := row.get("step"), int | float)
    ]
    return Curve(name, tuple(points))


def line_plot(curves: Sequence[Curve], *, title: str, x_label: str) -> str:
    """SVG of one or more curves over a shared axis, with a legend when there are several. Empty without two
    points.
    """
    drawn = [curve for curve in curves if len(curve.points) > 1]
    if not drawn:
        return ""
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y for curve in drawn for _, y in curve.points]
    ticks = nice_ticks(min(ys), max(ys))
    x_scale = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_scale = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_grid(tick, y_scale(tick)) for tick in ticks]
    for position, curve in enumerate(drawn):
        points = " ".join(f"{x_scale(x):.1f},{y_scale(y):.1f}" for x, y in _thinned(curve.points))
        parts.append(
            f'<polyline class="curve c{position}" points="{points}"><title>{safe(curve.name)}</title>'
            "</polyline>"
        )
        last_x, last_y = curve.points[-1]
        parts.append(
            f'<circle class="end c{position}" cx="{x_scale(last_x):.1f}" cy="{y_scale(last_y):.1f}" r="3.2"/>'
        )
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, x_label, "middle"))
    parts.append(_text(LEFT, HEIGHT - 14, f"{min(xs):g}", "middle"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 14, f"{max(xs):g}", "end"))
    return _figure(title, "".join(parts), legend=[curve.name for curve in drawn] if len(drawn) > 1 else [])


def day_plot(
    counts: Sequence[tuple[str, str, int]], *, today: date, days: int, kinds: Mapping[str, str], title: str
) -> str:
    """Stacked bars: (ISO date, kind, count) over the last `days` days. `kinds` maps kinds to names, in
    stacking order.
    """
    dates = [(today - timedelta(days=back)).isoformat() for back in reversed(range(days))]
    by_day: dict[str, dict[str, int]] = {day: {} for day in dates}
    for day, kind, count in counts:
        if day in by_day and kind in kinds:
            by_day[day][kind] = by_day[day].get(kind, 0) + count
    highest = max((sum(found.values()) for found in by_day.values()), default=0)
    if not highest:
        return ""
    ticks = [tick for tick in nice_ticks(0, highest) if tick == int(tick)]
    y_scale = _scale(0, ticks[-1], HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / days
    parts = [_grid(tick, y_scale(tick)) for tick in ticks]
    for index, day in enumerate(dates):
        parts += _stack(
            by_day[day],
            kinds,
            x=LEFT + index * step + step * 0.16,
            width=step * 0.68,
            y_scale=y_scale,
            day=day,
        )
        if index in (0, days - 1) or ((days - 1 - index) % 7 == 0 and index > 2):
            parts.append(_text(LEFT + (index + 0.5) * step, HEIGHT - 12, _short_day(day), "middle"))
    used = [kind for kind in kinds if any(kind in found for found in by_day.values())]
    return _figure(
        title,
        "".join(parts),
        legend=[kinds[kind] for kind in used],
        places=[list(kinds).index(kind) for kind in used],
    )


def bars(rows: Sequence[tuple[str, float, str]], *, title: str) -> str:
    """HTML bars: (name, value, the value in words). The longest bar is the greatest value; empty when all are
    zero.
    """
    highest = max((value for _, value, _ in rows), default=0)
    if highest <= 0:
        return ""
    items = "".join(
        f'<li><span class="what">{safe(name)}</span><span class="rail"><span class="bar" style="width:'
        f'{100 * max(0.0, value) / highest:.1f}%"></span></span><b>{safe(words)}</b></li>'
        for name, value, words in rows
    )
    return (
        f'<figure class="plot"><figcaption>{safe(title)}</figcaption><ul class="bars">{items}</ul></figure>'
    )


def nice_ticks(low: float, high: float, *, wanted: int = 4) -> list[float]:
    """About `wanted` round numbers from at or below `low` to at or above `high`."""
    if high - low <= 1e-9 * max(1.0, abs(low)):  # Flat, as far as a plot can tell.
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 2 - math.floor(math.log10(step))) for index in range(first, last + 1)]


def _stack(
    found: Mapping[str, int],
    kinds: Mapping[str, str],
    *,
    x: float,
    width: float,
    y_scale: Callable[[float], float],
    day: str,
) -> list[str]:
    parts, below = [], 0
    for place, (kind, name) in enumerate(kinds.items()):
        count = found.get(kind, 0)
        if count:
            top, bottom = y_scale(below + count), y_scale(below)
            parts.append(
                f'<rect class="fill c{place}" x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" '
                f'height="{bottom - top:.1f}" rx="1.5">'
                f"<title>{safe(f'{_short_day(day)}: {count} {name}')}</title></rect>"
            )
            below += count
    return parts


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _thinned(points: Sequence[tuple[float, float]], limit: int = 240) -> Sequence[tuple[float, float]]:
    """At most about `limit` points, the last one among them: no screen shows more."""
    stride = max(1, math.ceil(len(points) / limit))
    kept = list(points[::stride])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _grid(tick: float, y: float) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(LEFT - 7, y + 3.5, f"{tick:g}".replace("-", "−"), "end")


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{safe(words)}</text>'


def _figure(title: str, inside: str, *, legend: Sequence[str], places: Sequence[int] | None = None) -> str:
    marks = places if places is not None else range(len(legend))
    keys = "".join(
        f'<span><i class="key c{place}"></i>{safe(name)}</span>'
        for place, name in zip(marks, legend, strict=True)
    )
    return (
        f'<figure class="plot"><figcaption>{safe(title)}<span class="legend">{keys}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{safe(title)}">{inside}</svg></figure>'
    )


def _short_day(day: str) -> str:
    moment = date.fromisoformat(day)
    return f"{moment.day} {moment:%b}"
