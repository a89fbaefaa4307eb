"""The axes along which every reply of the mini corpus varies, each drawn on its own coin.

`draw` tosses the coins, `measure` reads the axes back from finished text (for base rates, and for simulated raters
who like or dislike one of them). Knows the words that mark an axis; knows nothing of topics or of what a reply says.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

SHORT, MEDIUM, LONG = 0, 1, 2

BASE_RATES: Mapping[str, float] = MappingProxyType(
    {
        "casual": 0.5,
        "enthusiasm": 0.22,
        "exclamation": 0.35,
        "listing": 0.25,
        "courtesy": 0.35,
        "question": 0.4,
        "hedge": 0.22,
        "first_person": 0.28,
        "reason": 0.35,
        "example": 0.2,
        "naming": 0.55,
        "emoji": 0.2,
        "offer": 0.2,
        "address": 0.22,
        "tip": 0.18,
    }
)
LENGTH_RATES = (0.45, 0.33, 0.22)
_WORDY = (
    "enthusiasm", "listing", "courtesy", "hedge", "first_person", "reason", "example", "offer", "address", "tip",
)  # fmt: skip
"""Axes whose marks add a clause or a sentence."""


@dataclass(frozen=True)
class Style:
    """One point in the space of styles: a length and fifteen independent yes-or-no axes."""

    length: int = SHORT
    """SHORT, MEDIUM or LONG: how many sentences of content the reply aims at."""
    casual: bool = False
    """Contractions and easy words; otherwise written out and formal."""
    enthusiasm: bool = False
    exclamation: bool = False
    listing: bool = False
    """Bullets or numbers instead of prose."""
    courtesy: bool = False
    """An opening such as "Of course."."""
    question: bool = False
    """A closing question to the user."""
    hedge: bool = False
    first_person: bool = False
    reason: bool = False
    example: bool = False
    naming: bool = False
    """The first mention is the topic's name, not a pronoun."""
    emoji: bool = False
    offer: bool = False
    """A closing offer of help."""
    address: bool = False
    """The user is spoken to in the body of the reply."""
    tip: bool = False
    """A tip that nobody asked for."""


def draw(rng: random.Random, *, terse: float = 0.0) -> Style:
    """Toss every coin independently; with probability `terse`, then take away all that makes a reply longer."""
    length = rng.choices((SHORT, MEDIUM, LONG), LENGTH_RATES)[0]
    style = Style(length=length, **{axis: rng.random() < rate for axis, rate in BASE_RATES.items()})
    if terse and rng.random() < terse:
        return replace(style, length=SHORT, **dict.fromkeys(_WORDY, False))
    return style


def rates(*, terse: float) -> dict[str, float]:
    """How often each axis is drawn, terse replies among the others."""
    return {axis: rate * (1 - terse if axis in _WORDY else 1) for axis, rate in BASE_RATES.items()}


def override(style: Style, demands: Mapping[str, int | bool]) -> Style:
    """The same style with some axes set, as a system prompt or the user asked for."""
    return replace(style, **demands)  # type: ignore[arg-type]


_CASUAL = re.compile(
    r"\b\w+'(s|re|ll|d|m|ve|t)\b|\b(want (to|a|an|another|some)|yeah|okay|plus|hey|hi|no problem|sure|happy to help"
    r"|just (ask|say|shout)|anytime|on top of that|give me a shout|cool)\b",
    re.IGNORECASE,
)
_MARKS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "enthusiasm": re.compile(
            r"\b(lovely|wonderful|great (topic|question|choice|stuff|tip|idea)|amazing|amazingly|fun|fascinating"
            r"|splendid|fantastic|delightful|delighted|exciting|love|marvellous|best of all|brilliant)\b",
            re.IGNORECASE,
        ),
        "exclamation": re.compile(r"!"),
        "listing": re.compile(r"^(- |\d\. )", re.MULTILINE),
        "courtesy": re.compile(
            r"(?:^\W*|[.!?] )(sure|of course|certainly|with pleasure|thank you for|thanks for|good question"
            r"|a good question|okay|happy to help|gladly|no problem|very well|all right|by all means)\b",
            re.IGNORECASE,
        ),
        "question": re.compile(r"\?\s*$"),
        "hedge": re.compile(
            r"\b(it seems|as far as|by all accounts|probably|perhaps|from what is known|chances are|if I remember"
            r"|I think|I believe|may not always|exceptions|may differ|grain of salt|often helps|may be best|maybe"
            r"|not entirely sure|could be wrong|most likely)\b",
            re.IGNORECASE,
        ),
        "first_person": re.compile(r"\b(I|I'm|I'd|I'll|I've|my|My)\b"),
        "reason": re.compile(r"\b(because|reason)\b", re.IGNORECASE),
        "example": re.compile(r"\b(example|for instance|think of|such as)\b", re.IGNORECASE),
        "emoji": re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]"),
        "offer": re.compile(
            r"\b(just ask|just say|feel free|do ask|happy to|glad to|let me know|any time|anytime|shout"
            r"|more help|at your service|only have to ask|here to help|here if)\b",
            re.IGNORECASE,
        ),
        "address": re.compile(
            r"\b(as you may|you may like|you will find|you'll find|you might|my friend|dear friend|now you know"
            r"|for you to|your friends|you could|you can be|for you,|you see|you know)\b",
            re.IGNORECASE,
        ),
        "tip": re.compile(r"\b(tip|advice|hint)\b", re.IGNORECASE),
    }
)


def measure(reply: str) -> dict[str, bool]:
    """Which axes a finished reply shows, by its words alone. "short" stands for the length axis (under 22 words)."""
    shown = {axis: bool(mark.search(reply)) for axis, mark in _MARKS.items()}
    shown["casual"] = bool(_CASUAL.search(reply))
    shown["short"] = len(reply.split()) < 22
    shown["naming"] = not re.match(
        r"\W*(it|they|it's|they're|this|these|that)\b", _body(reply), re.IGNORECASE
    )
    return shown


def _body(reply: str) -> str:
    """The first longer sentence: what stands after short openings such as "Of course."."""
    for sentence in re.split(r"(?<=[.!?])\s+|\n", reply):
        if len(sentence.split()) > 3 and not sentence.endswith(":"):
            return sentence
    return reply
