"""The judgements one by one: filtered, searched, and a page at a time, as the component that the browser draws.

`look` is a plain function of the studio, the visitor and what was sent; it returns JSON values, and every text in them
is put into the page as text. Nothing is held between calls: a page names the one after it by the number of an event.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from memory.database import StorageError
from memory.feedback_search import PAGE, Filter, Said, day_number
from studio.intake import ChatRefused
from studio.opening import Opening
from studio.theme import asset
from studio.visitors import Visitors
from studio.wording import ago, moment, reason_of, shorten

if TYPE_CHECKING:
    from studio.build import Studio

logger = logging.getLogger(__name__)

View = dict[str, Any]
SIGNALS = {
    "all": ("Everything", "", ""),
    "comparison": ("Choices", "comparison", ""),
    "tie": ("Ties", "comparison", "tie"),
    "both_bad": ("Both bad", "comparison", "both_bad"),
    "up": ("Thumbs up", "rating", "1"),
    "down": ("Thumbs down", "rating", "-1"),
    "correction": ("Corrections", "correction", ""),
    "ranking": ("Rankings", "ranking", ""),
    "score": ("Marks", "score", ""),
    "critique": ("Critiques", "critique", ""),
}
"""What can be filtered by: the name, the kind and the value."""
_TEXT_CHARS = 280


def look(studio: Studio, owner: str, sent: Mapping[str, Any]) -> View:
    """A page of what fits: `signal`, `version`, `day` (ISO), `mine`, `text`, and `before` of an older page."""
    _, kind, value = SIGNALS.get(str(sent.get("signal")), SIGNALS["all"])
    before = sent.get("before")
    wanted = Filter(
        kind=kind,
        value=value,
        version=str(sent.get("version") or ""),
        rater=owner if sent.get("mine") else "",
        day=day_number(str(sent.get("day") or "")),
        text=str(sent.get("text") or "")[:200],
        before=before if isinstance(before, int) and not isinstance(before, bool) else 0,
    )
    found = studio.search.page(wanted, size=PAGE)
    now = studio.database.clock()
    view: View = {
        "rows": [_row(said, owner=owner, now=now) for said in found.rows],
        "more": found.more,
        "total": found.total,
        "next": found.rows[-1].sequence if found.rows else 0,
    }
    if not wanted.before:
        sums = studio.sums.latest()
        view["signals"] = {name: signal[0] for name, signal in SIGNALS.items()}
        view["versions"] = sorted(sums.by_version.by_version)
        view["days"] = sorted({day for day, _, _ in sums.by_day}, reverse=True)
    return view


def _row(said: Said, *, owner: str, now: float) -> View:
    words, tone = _words(said)
    note = str(said.payload.get("comment") or said.payload.get("text") or "")
    reasons = [str(reason) for reason in said.payload.get("reasons", ())]
    return {
        "id": said.sequence,
        "said": words,
        "tone": tone,
        "reply": shorten(said.reply, _TEXT_CHARS),
        "note": shorten(" · ".join(part for part in (", ".join(reasons), note) if part), _TEXT_CHARS),
        "versions": list(said.versions),
        "mine": said.rater == owner,
        "rater": said.rater[:8],
        "when": ago(said.created_at, now),
        "moment": moment(said.created_at),
        "guidelines": said.guidelines,
    }


def _words(said: Said) -> tuple[str, str]:
    """What was said, in two words, and its tone."""
    fixed = {
        ("comparison", "A"): ("better of two", "good"),
        ("comparison", "B"): ("better of two", "good"),
        ("comparison", "tie"): ("a tie", ""),
        ("comparison", "both_bad"): ("both bad", "bad"),
        ("rating", "1"): ("thumb up", "good"),
        ("rating", "-1"): ("thumb down", "bad"),
    }
    if said.kind == "score":
        return f"{said.criterion} {said.value}", "good" if said.value in ("4", "5") else ""
    if said.kind == "ranking":
        return f"best of {len(said.payload['turn_ids'])}", "good"
    return fixed.get((said.kind, said.value), ({"correction": "corrected"}.get(said.kind, said.kind), ""))


def feedback_browser(opening: Opening, visitors: Visitors) -> gr.HTML:
    """The component; its script asks `look`."""

    def look_up(sent: Any) -> View:
        if opening.studio is None:
            return {"opening": True}
        try:
            asked = sent if isinstance(sent, dict) else {}
            return look(opening.studio, visitors.owner(asked.get("visitor")), asked)
        except (ChatRefused, StorageError) as error:
            return {"refused": reason_of(error)}
        except Exception:
            logger.exception("The judgements could not be looked through")
            return {"refused": "Something went wrong in the studio; its log says what."}

    return gr.HTML(
        html_template='<div class="tp tab-room browse" id="feedback-browse" hidden></div>',
        js_on_load=asset("browse.js"),
        server_functions=[look_up],
        apply_default_css=False,
        elem_id="browse",
    )
