"""What do we know? The judgements that people gave: in a sentence, in plots, and the latest of them one by one.

Reading only; every text that somebody typed or a model wrote is escaped. This module knows no training and no versions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

from memory.schema import Correction, FeedbackCounts, Judgement, LabeledComparison, Rating
from studio.plots import bars, day_plot
from studio.wording import count, every_so_many, safe, shorten, when

if TYPE_CHECKING:
    from studio.build import Studio

DAYS = 14
LATEST = 25
KINDS = {"comparison": "choices", "rating": "thumbs", "correction": "corrections"}


def render(studio: Studio, owner: str, now: float) -> str:
    """HTML of the tab for this visitor."""
    counts = studio.ledger.counts()
    total = _total(counts)
    if not total:
        return _empty(studio.settings.compare_every)
    judgements = _latest(studio)
    today = datetime.fromtimestamp(now, UTC).date()
    by_day = day_plot(
        studio.ledger.judgements_by_day(DAYS), today=today, days=DAYS, kinds=KINDS, title="Judgements by day"
    )
    return (
        f'<div class="tp tab-room"><h1>{_headline(counts)}</h1><p class="lead">{_lead(studio, owner)}</p>'
        f'<div class="plots">{by_day}{bars(_signals(counts), title="By kind")}</div>'
        f"<h2>The latest</h2>{_table(studio, judgements[:LATEST], owner=owner, now=now)}</div>"
    )


def _total(counts: FeedbackCounts) -> int:
    return sum(number for _, number, _ in _signals(counts))


def _signals(counts: FeedbackCounts) -> list[tuple[str, int, str]]:
    signals = (
        ("Chosen over another", counts.comparisons_decided),
        ("Called a tie", counts.ties),
        ("Both found bad", counts.both_bad),
        ("Thumbs up", counts.ratings_up),
        ("Thumbs down", counts.ratings_down),
        ("Corrected", counts.corrections),
    )
    return [(name, number, f"{number:,}") for name, number in signals]


def _headline(counts: FeedbackCounts) -> str:
    parts = [
        count(counts.comparisons_decided + counts.ties + counts.both_bad, "comparison"),
        count(counts.ratings_up + counts.ratings_down, "thumb"),
        count(counts.corrections, "correction"),
    ]
    said = [part for part in parts if not part.startswith("0 ")]
    words = " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
    return f"People have given {words}."


def _lead(studio: Studio, owner: str) -> str:
    mine = sum(judgement.rater == owner for judgement in _all(studio))
    yours = f"{count(mine, 'judgement')} of these {'is' if mine == 1 else 'are'} yours. " if mine else ""
    return yours + safe(studio.retraining.readiness().sentence)


def _all(studio: Studio) -> list[Judgement]:
    ledger = studio.ledger
    return list(chain(ledger.comparisons(), ledger.ratings(), ledger.corrections()))


def _latest(studio: Studio) -> list[Judgement]:
    return sorted(_all(studio), key=lambda judgement: judgement.created_at, reverse=True)


def _table(studio: Studio, judgements: list[Judgement], *, owner: str, now: float) -> str:
    rows = "".join(
        f'<tr><td data-label="Said"><span class="chip {tone}">{safe(said)}</span></td>'
        f'<td class="wide" dir="auto">{safe(shorten(text, 150)) or "<i>an empty reply</i>"}</td>'
        f'<td class="mono" data-label="Version">{safe(version)}</td>'
        f'<td data-label="By">{"you" if judgement.rater == owner else "someone"}</td>'
        f"<td>{when(judgement.created_at, now)}</td></tr>"
        for judgement in judgements
        for said, tone, text, version in [_row(studio, judgement)]
    )
    return (
        '<div class="table"><table><thead><tr><th>Said</th><th>About</th><th>Version</th><th>By</th><th>When'
        "</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(studio: Studio, judgement: Judgement) -> tuple[str, str, str, str]:
    """What was said, its tone, the reply it is about, and the version that wrote it."""
    if isinstance(judgement, LabeledComparison):
        comparison = judgement.comparison
        if judgement.chosen is None:
            versions = " / ".join(sorted({comparison.version_A, comparison.version_B}))
            said = "a tie" if judgement.label == "tie" else "both bad"
            return said, "", comparison.completion_A, versions
        version = comparison.version_A if judgement.label == "A" else comparison.version_B
        return "better of two", "good", judgement.chosen, version
    if isinstance(judgement, Rating):
        turn = studio.ledger.turn(judgement.turn_id)
        said, tone = ("thumb up", "good") if judgement.value > 0 else ("thumb down", "bad")
        return said, tone, turn.completion, turn.policy_version
    if isinstance(judgement, Correction):
        return "corrected to", "good", judgement.text, studio.ledger.turn(judgement.turn_id).policy_version
    raise TypeError(
        f"The table got a {type(judgement).__name__}; expected a comparison, a rating or a correction."
    )


def _empty(compare_every: int) -> str:
    how = (
        f"In the chat, {every_so_many(compare_every)} comes as a pair: choose the better one. "
        if compare_every
        else "In the chat, "
    )
    return (
        '<div class="tp tab-room nothing"><h1>Nobody has judged a reply yet.</h1>'
        f'<p class="lead">{how}Thumbs and corrected replies count too. What people say is collected here, '
        "and the next "
        'version learns from it.</p><button class="tp-button primary" data-go="chat">Go to the chat</button>'
        "</div>"
    )
