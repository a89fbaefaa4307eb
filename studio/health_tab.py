"""Is it drifting? What people and reports say about each version, side by side.

People: when two versions stood side by side without their names, which one was chosen; and the thumbs.
Reports: how far a version has moved from the base, and how long its replies are. The tab is shown once there
is a version to speak of. This module only reads, and raises no alarm of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memory.schema import LabeledComparison
from studio.plots import bars
from studio.wording import count, number, safe
from training.registry import AdapterVersion

if TYPE_CHECKING:
    from studio.build import Studio

LATEST_THUMBS = 500
LONGER = 1.5
"""A version whose replies are this many times as long as the base's, or as short, is spoken of in the first
sentence.
"""


@dataclass(frozen=True)
class Duel:
    """Blind comparisons between two versions: how often each was chosen, and how often neither."""

    newer: str
    older: str
    newer_chosen: int
    older_chosen: int
    neither: int


def is_worth_showing(studio: Studio) -> bool:
    """Is there a version beside the base?"""
    return any(item.manifest is not None for item in studio.registry.versions())


def duels(comparisons: list[LabeledComparison]) -> list[Duel]:
    """The comparisons of two different versions, by pair of versions, the newest pair first."""
    chosen: Counter[tuple[str, str, str]] = Counter()
    for labeled in comparisons:
        asked = labeled.comparison
        if asked.version_A != asked.version_B:
            older, newer = sorted((asked.version_A, asked.version_B), key=lambda name: (name != "base", name))
            winner = {"A": asked.version_A, "B": asked.version_B}.get(labeled.label, "")
            chosen[newer, older, winner] += 1
    pairs = sorted({(newer, older) for newer, older, _ in chosen}, reverse=True)
    return [
        Duel(newer, older, chosen[newer, older, newer], chosen[newer, older, older], chosen[newer, older, ""])
        for newer, older in pairs
    ]


def render(studio: Studio, owner: str, now: float) -> str:
    """HTML of the tab."""
    versions = [item for item in studio.registry.versions() if item.manifest is not None]
    lengths = [
        (item.version, float(value), number(value, 0))
        for item in versions
        if (value := _figure(item, "candidate", "mean_tokens"))
    ]
    base_length = next(
        (value for item in reversed(versions) if (value := _figure(item, "base", "mean_tokens"))), None
    )
    if base_length:
        lengths.insert(0, ("base", base_length, number(base_length, 0)))
    moved = [
        (item.version, float(value), number(value, 1))
        for item in versions
        if (value := _figure(item, "kl_base"))
    ]
    headline = _headline(studio.serving.current.version, {name: value for name, value, _ in lengths})
    return (
        f'<div class="tp tab-room"><h1>{headline}</h1>'
        '<p class="lead">What people chose when they did not know which version they read, and what the '
        "check measured of each.</p>"
        f"{_duels(duels(studio.ledger.comparisons()))}<div "
        f'class="plots">{bars(moved, title="Distance from the base, nats a reply")}'
        f"{bars(lengths, title='Length of replies, tokens')}"
        f"{bars(_thumbs(studio), title='Thumbs down, share of thumbs')}</div></div>"
    )


def _headline(served: str, lengths: dict[str, float]) -> str:
    if served == "base" or served not in lengths or not lengths.get("base"):
        return "Nothing unusual to report."
    ratio = lengths[served] / lengths["base"]
    if ratio >= LONGER or ratio <= 1 / LONGER:
        how = f"{ratio:.1f} times as long as" if ratio > 1 else f"{100 * ratio:.0f} % as long as"
        return f"Replies of {safe(served)} are {how} the base model’s."
    return f"Replies of {safe(served)} are about as long as the base model’s."


def _duels(found: list[Duel]) -> str:
    if not found:
        return (
            '<p class="lead">No two versions have been compared by people yet: now and then a pair sets the '
            "served version against the one before.</p>"
        )
    items = "".join(
        f"<li>Between <b class='mono'>{safe(duel.newer)}</b> and <b class='mono'>{safe(duel.older)}</b>, "
        f"people chose {safe(duel.newer)} "
        f"{count(duel.newer_chosen, 'time')}, {safe(duel.older)} {count(duel.older_chosen, 'time')}, neither "
        f"{count(duel.neither, 'time')}.</li>"
        for duel in found[:6]
    )
    return f'<ul class="duels">{items}</ul>'


def _thumbs(studio: Studio) -> list[tuple[str, float, str]]:
    down: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for rating in studio.ledger.ratings()[-LATEST_THUMBS:]:
        version = studio.ledger.turn(rating.turn_id).policy_version
        total[version] += 1
        down[version] += rating.value < 0
    return [
        (version, down[version] / total[version], f"{down[version]} of {total[version]}")
        for version in sorted(total)
    ]


def _figure(item: AdapterVersion, *names: str) -> float | None:
    """A figure of the evaluation in the version's manifest, None where it was not measured."""
    found: Any = item.manifest.report.get("evaluation", {}) if item.manifest else {}
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return float(found) if isinstance(found, int | float) else None
