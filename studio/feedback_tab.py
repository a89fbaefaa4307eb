"""What do we know? What people said: in a sentence, in plots, by version, by rater, and what training will make of it.

The judgements one by one are `studio.feedback_browser`'s. Reading only; every text that somebody typed or a model wrote
is escaped. The database does the counting, so a long ledger is shown as quickly as a short one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from memory.schema import FeedbackCounts
from studio.feedback_sums import DAYS, Sums
from studio.plots import bars, day_plot
from studio.wording import count, every_so_many, percent, safe
from training.trigger import explain_dropped

if TYPE_CHECKING:
    from studio.build import Studio

KINDS = {"comparison": "choices", "rating": "thumbs", "correction": "corrections"}
VERSIONS = 8


def render(studio: Studio, owner: str, now: float) -> str:
    """HTML of the tab for this visitor."""
    sums = studio.sums.latest()
    if not _total(sums.counts):
        return _empty(studio.settings.compare_every)
    today = datetime.fromtimestamp(now, UTC).date()
    by_day = day_plot(sums.by_day, today=today, days=DAYS, kinds=KINDS, title="Judgements by day")
    lead = _lead(studio, owner)
    return (
        f'<div class="tp tab-room"><h1>{_headline(sums.counts)}</h1><p class="lead">{lead}</p>'
        f'<div class="plots">{by_day}{bars(_signals(sums.counts), title="By kind")}</div>'
        f"{_prospect(studio)}{_versions(sums)}{_raters(sums, owner)}</div>"
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
        ("Put in order", counts.rankings),
        ("Marks given", counts.scores),
        ("Critiques", counts.critiques),
    )
    return [(name, number, f"{number:,}") for name, number in signals]


def _headline(counts: FeedbackCounts) -> str:
    parts = [
        count(counts.comparisons_decided + counts.ties + counts.both_bad, "comparison"),
        count(counts.ratings_up + counts.ratings_down, "thumb"),
        count(counts.corrections, "correction"),
        count(counts.rankings, "ranking"),
        count(counts.scores, "mark"),
        count(counts.critiques, "critique"),
    ]
    said = [part for part in parts if not part.startswith("0 ")]
    words = " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
    return f"People have given {words}."


def _lead(studio: Studio, owner: str) -> str:
    mine = studio.search.count_by(owner)
    yours = f"{count(mine, 'judgement')} of these {'is' if mine == 1 else 'are'} yours. " if mine else ""
    return yours + safe(studio.retraining.readiness().sentence)


def _prospect(studio: Studio) -> str:
    """What training will make of it, in words."""
    prospect = studio.retraining.prospects.latest()
    if not prospect.sequence:
        return ""
    made = (
        f"{count(prospect.train, 'pair')} to train on and {count(prospect.heldout, 'pair')} kept aside to "
        "examine the result by"
    )
    left_out = explain_dropped(prospect.dropped)
    why = f" No pair comes of {safe(left_out)}." if left_out else ""
    return f"<h2>What training will make of it</h2><p>{made}.{why}</p>"


def _versions(sums: Sums) -> str:
    said = sorted(sums.by_version.by_version.items(), key=lambda item: -sum(item[1].values()))[:VERSIONS]
    rows = "".join(
        f'<tr><td class="mono">{safe(version)}</td><td class="number" data-label="Judgements">'
        f'{sum(counts.values()):,}</td><td class="number" data-label="Compared">'
        f'{_of_kind(counts, "comparison"):,}</td><td class="number" data-label="Thumbs up">'
        f"{_liked(counts)}</td></tr>"
        for version, counts in said
    )
    return _table("By version", ("Version", "Judgements", "Compared", "Thumbs up"), rows)


def _of_kind(counts: Mapping[tuple[str, str], int], kind: str) -> int:
    return sum(number for (name, _), number in counts.items() if name == kind)


def _liked(counts: Mapping[tuple[str, str], int]) -> str:
    up, down = counts.get(("rating", "1"), 0), counts.get(("rating", "-1"), 0)
    return f"{percent(up / (up + down))} of {up + down:,}" if up + down else "–"


def _raters(sums: Sums, owner: str) -> str:
    if sums.by_version.raters < 2:
        return ""
    rows = "".join(
        f"<tr><td>{'you' if row.rater == owner else f'<span class=mono>{safe(row.rater[:8])}</span>'}</td>"
        f'<td class="number" data-label="Judgements">{row.judgements:,}</td>'
        f'<td class="number" data-label="Compared">{row.comparisons:,}</td>'
        f'<td class="number" data-label="Ties">{_share(row.ties, row.comparisons)}</td>'
        f'<td class="number" data-label="Thumbs up">{_share(row.up, row.up + row.down)}</td></tr>'
        for row in sums.raters
    )
    title = f"By rater: {count(sums.by_version.raters, 'person', 'people')}"
    return _table(title, ("Rater", "Judgements", "Compared", "Ties", "Thumbs up"), rows)


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else "–"


def _table(title: str, heads: Sequence[str], rows: str) -> str:
    return (
        f'<h2>{title}</h2><div class="table"><table><thead><tr>{"".join(f"<th>{head}</th>" for head in heads)}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
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
