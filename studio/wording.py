"""Figures and times as a person says them, and text made safe for HTML. Pure functions; knows nothing of the studio."""

from __future__ import annotations

import html
from datetime import UTC, datetime


def safe(text: object) -> str:
    """`text` as it may stand in HTML, in an attribute too. Everything that was typed or generated goes through here."""
    return html.escape(str(text), quote=True)


def reason_of(error: BaseException) -> str:
    """What an error says to a person: its sentence, without the number that the operating system gave it."""
    sentence = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return sentence or type(error).__name__


def count(number: int, thing: str, things: str = "") -> str:
    """``"1 reply"``, ``"2 replies"``; the plural is `things`, or `thing` with an s."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def every_so_many(count_of_replies: int) -> str:
    """``"every reply"``, ``"every third reply"``, ``"every 12th reply"``: how often something comes."""
    names = {1: "", 2: "second ", 3: "third ", 4: "fourth ", 5: "fifth "}
    last = (
        "th"
        if 10 < count_of_replies % 100 < 14
        else {1: "st", 2: "nd", 3: "rd"}.get(count_of_replies % 10, "th")
    )
    return f"every {names.get(count_of_replies, f'{count_of_replies}{last} ')}reply"


def percent(share: float | None) -> str:
    """A share as ``"57 %"``; a dash for what was not measured."""
    return "–" if share is None else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 2) -> str:
    """A figure with a true minus sign; a dash for what was not measured."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def ago(then: float, now: float) -> str:
    """How long ago, roughly: ``"just now"``, ``"5 min ago"``, ``"3 h ago"``, and from a week on the date."""
    seconds = max(0.0, now - then)
    if seconds < 45:
        return "just now"
    for limit, size, unit in ((3600, 60, "min"), (86_400, 3600, "h")):
        if seconds < limit:
            return f"{max(1, round(seconds / size))} {unit} ago"
    days = int(seconds // 86_400)
    return count(days, "day") + " ago" if days < 7 else day(then)


def day(then: float) -> str:
    """The UTC date, such as ``"3 Nov 2026"``."""
    moment = datetime.fromtimestamp(then, UTC)
    return f"{moment.day} {moment:%b %Y}"


def moment(then: float) -> str:
    """The UTC date and time, for a tooltip."""
    return f"{datetime.fromtimestamp(then, UTC):%Y-%m-%d %H:%M} UTC"


def when(then: float, now: float) -> str:
    """HTML: how long ago, with the exact time as a tooltip."""
    exact = datetime.fromtimestamp(then, UTC).isoformat(timespec="seconds")
    return f'<time class="nowrap" datetime="{exact}" title="{moment(then)}">{ago(then, now)}</time>'


def lasting(seconds: float) -> str:
    """A duration as ``"20 s"``, ``"3 min"``, ``"2 h 5 min"``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def sentence(words: str) -> str:
    """`words` with a full stop, unless they end like a sentence already."""
    said = words.strip()
    return said if not said or said[-1] in ".!?…:" else f"{said}."


def shorten(text: str, limit: int) -> str:
    """`text` on one line, at most `limit` characters, cut at a word."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    cut = line[:limit]
    return f"{cut.rsplit(' ', 1)[0] if ' ' in cut[limit // 2 :] else cut}…"
