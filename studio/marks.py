"""Small drawings: the thumbprint of an adapter, made from its fingerprint, and the icons of the loop. Pure SVG.

An adapter's mark is drawn from the eight hexadecimal digits of its fingerprint, so two adapters look different and the
same adapter looks the same everywhere on the page. Colours are ``currentColor``; nothing here knows light or dark.
"""

from __future__ import annotations

import hashlib
import math

_ICONS = {
    "talk": "M4 5.5h16v11H10l-4.5 3.5v-3.5H4z",
    "rate": (
        "M7 10.5V20"
        "M7 10.5 10.8 4c1.4 0 2 1 1.8 2.3L12 9.5h5.2c1.3 0 2.1 1 1.8 2.2l-1.4 6.4c-.2 1.1-1"
        " 1.9-2.2 1.9H7"
    ),
    "train": "M4 18.5 9 12l4 3.5L20 6M20 6h-4.5M20 6v4.5",
    "check": "M12 3.5 19 6v6c0 4.2-2.8 7-7 8.5C7.8 19 5 16.2 5 12V6zM9 12l2.2 2.2L15.2 10",
    "serve": "M5 12h12M12.5 6.5 18 12l-5.5 5.5",
    "sun": (
        "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4"
        "M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4"
    ),
    "moon": "M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5z",
    "again": "M18 4v5h-5M18 9a7 7 0 1 0 1.2 5",
    "thumbprint": (
        "M5 17v-4.5a7 7 0 0 1 12.3-4.6M19 11.5V15a17 17 0 0 1-1 5M8.5 19v-6.5a3.5 3.5 0 0 1 7 0V15"
        "M12 12.5v5.5a14 14 0 0 1-.5 3.5M15.2 18.5l-.6 2.5M5.2 20.5l.2-1"
    ),
}


def icon(name: str, classes: str = "") -> str:
    """A line drawing of 24 by 24."""
    return (
        f'<svg class="{classes}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.7" '
        f'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="{_ICONS[name]}"/></svg>'
    )


def mark(fingerprint: str) -> str:
    """The thumbprint of an adapter: four ridges whose lengths and turns come from its fingerprint's digits."""
    digits = _digits(fingerprint)
    ridges = [
        _ridge(radius=2.3 + 2.5 * ring, turn=digits[ring] / 16, length=0.45 + 0.45 * digits[ring + 3] / 15)
        for ring in range(4)
    ]
    return (
        '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.5" '
        'stroke-linecap="round" '
        f'aria-hidden="true"><path d="{" ".join(ridges)}"/></svg>'
    )


def _digits(fingerprint: str) -> list[int]:
    """Eight digits from 0 to 15: the fingerprint's own, or those of its hash when it is not a hexadecimal word."""
    word = fingerprint.lower()
    if len(word) < 8 or any(letter not in "0123456789abcdef" for letter in word[:8]):
        word = hashlib.sha256(fingerprint.encode()).hexdigest()
    return [int(letter, 16) for letter in word[:8]]


def _ridge(*, radius: float, turn: float, length: float) -> str:
    """An arc around (12, 12). `turn` says where it begins and `length` how long it is, both in whole turns below 1."""
    start, end = 2 * math.pi * turn, 2 * math.pi * (turn + length)
    begin = f"M{12 + radius * math.cos(start):.2f} {12 + radius * math.sin(start):.2f}"
    stop = f"{12 + radius * math.cos(end):.2f} {12 + radius * math.sin(end):.2f}"
    return f"{begin}A{radius:.2f} {radius:.2f} 0 {int(length > 0.5)} 1 {stop}"
