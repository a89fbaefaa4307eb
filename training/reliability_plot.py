"""The reliability diagram of a reward model as an SVG drawing: how sure it was against how often it was right.

Points on the diagonal are honest; below it the reward model is surer than it may be. Pure: numbers in, a string out; it
draws with no library and knows no model and no file.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.preference_losses import CalibrationBin

_SIDE, _LEFT, _TOP, _BOTTOM = 260, 56, 34, 48
_TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def reliability_svg(bins: Sequence[CalibrationBin], *, title: str = "How sure, and how often right") -> str:
    """The diagram of `bins` whose confidences are between a half and 1; empty for no bins.

    The area of a point is the share of the pairs that it stands for. Accuracies below a half, where the plot ends, are
    drawn on its lower edge.
    """
    if not bins:
        return ""
    width, height = _LEFT + _SIDE + 16, _TOP + _SIDE + _BOTTOM
    total = sum(found.count for found in bins)
    points = "".join(_point(found, total) for found in bins)
    middle = _LEFT + _SIDE / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="{title}">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f'<text x="{middle}" y="18" text-anchor="middle" font-size="13">{title}</text>{_axes()}'
        f'<line x1="{_x(0.5)}" y1="{_y(0.5)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#888" stroke-dasharray="4 4"/>'
        f"{points}"
        f'<text x="{middle}" y="{height - 10}" text-anchor="middle">how sure it was of a choice</text>'
        f'<text x="14" y="{_TOP + _SIDE / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_TOP + _SIDE / 2})">how often it was right</text></svg>\n'
    )


def _axes() -> str:
    drawn = f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#888"/>'
    for tick in _TICKS:
        drawn += f'<text x="{_x(tick):.1f}" y="{_TOP + _SIDE + 16}" text-anchor="middle">{tick:.0%}</text>'
        drawn += f'<text x="{_LEFT - 6}" y="{_y(tick) + 4:.1f}" text-anchor="end">{tick:.0%}</text>'
    return drawn


def _point(found: CalibrationBin, total: int) -> str:
    radius = 3 + 12 * (found.count / total) ** 0.5
    said = f"{found.count} pairs: {found.confidence:.0%} sure, {found.correct:.0%} right"
    return (
        f'<circle cx="{_x(found.confidence):.1f}" cy="{_y(found.correct):.1f}" r="{radius:.1f}" fill="#2563eb" '
        f'fill-opacity="0.6"><title>{said}</title></circle>'
    )


def _x(confidence: float) -> float:
    return _LEFT + _SIDE * (confidence - 0.5) / 0.5


def _y(correct: float) -> float:
    return _TOP + _SIDE * (1 - (max(correct, 0.5) - 0.5) / 0.5)
