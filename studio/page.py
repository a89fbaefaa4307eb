"""The page: the strip on top, five rooms below it, and what happens on a click. Composition only.

Handlers are plain functions of the studio; here they are bound to components. Every visitor has values of
their own: nothing that belongs to one is computed while the page is being built. The strip and the room that
is being looked at are redrawn when they have changed, about once a second and a half; what has not changed is
not sent.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from memory.database import StorageError
from memory.runs import RunEnded, RunInProgress
from studio import feedback_tab, health_tab, training_tab, versions_tab
from studio.chat_tab import chat_room
from studio.feedback_browser import feedback_browser
from studio.intake import ChatRefused
from studio.opening import Opening
from studio.retraining import RetrainingRefused
from studio.strip import masthead, read_loop
from studio.theme import asset
from studio.visitors import Visitors
from studio.wording import reason_of, safe
from training.registry import AdapterRefused

if TYPE_CHECKING:
    from studio.build import Studio

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.5
ROOMS: dict[str, Callable[[Studio, str, float], str]] = {
    "feedback": feedback_tab.render,
    "training": training_tab.render,
    "versions": versions_tab.render,
    "health": health_tab.render,
}
WHO_AND_WHERE = "(visitor, tab, seen) => [thumbprint.visitor(), thumbprint.tab(), seen]"
REFUSALS = (ChatRefused, RetrainingRefused, RunInProgress, RunEnded, AdapterRefused, StorageError)

Seen = dict[str, str]


def pulse(
    opening: Opening,
    visitors: Visitors,
    visitor: str,
    tab: str,
    seen: Seen,
    *,
    clock: Callable[[], float] = time.time,
) -> tuple[list[Any], Seen]:
    """What has changed: the strip, each room (only the one being looked at is drawn), and whether Health is
    shown.

    Returns one update for each of strip, rooms and the Health tab, in that order, and the new `seen`.
    """
    seen = dict(seen or {})
    try:
        updates = [_if_new("strip", masthead(read_loop(opening)), seen)]
        shown = opening.studio is not None and health_tab.is_worth_showing(opening.studio)
    except StorageError as error:  # The next tick tries again; the strip stays as it was.
        logger.warning("The strip could not be read: %s", error)
        return [gr.skip()] * (len(ROOMS) + 2), seen
    for name in ROOMS:
        drawn = draw_room(opening, visitors, visitor, name, clock=clock) if name == tab else None
        updates.append(gr.skip() if drawn is None else _if_new(name, drawn, seen))
    updates.append(gr.skip() if seen.get("health shown", "") == str(shown) else gr.Tab(visible=shown))
    seen["health shown"] = str(shown)
    return updates, seen


def draw_room(
    opening: Opening, visitors: Visitors, visitor: str, name: str, *, clock: Callable[[], float] = time.time
) -> str:
    """HTML of a room for this visitor, or of why it cannot be shown yet."""
    if opening.studio is None:
        words = (
            f"The studio could not open: {opening.problem}"
            if opening.problem
            else "The model is being loaded. A few seconds more."
        )
        return f'<div class="tp tab-room nothing"><p class="lead">{safe(words)}</p></div>'
    try:
        return ROOMS[name](opening.studio, visitors.owner(visitor), clock())
    except REFUSALS as error:
        return f'<div class="tp tab-room"><p class="warning" role="alert">{safe(reason_of(error))}</p></div>'


def act(
    opening: Opening, visitors: Visitors, visitor: str, name: str, *, version: str = "", reason: str = ""
) -> tuple[str, bool]:
    """Do what a button asks: ``retrain``, ``cancel_run`` or ``roll_back``. Returns a sentence, and whether it
    was done.
    """
    studio = opening.studio
    if studio is None:
        return "The model is still being loaded. Try again in a few seconds.", False
    try:
        owner = visitors.owner(visitor)
        if name == "retrain":
            return training_tab.retrain(studio, owner), True
        if name == "cancel_run":
            return training_tab.cancel(studio), True
        return versions_tab.roll_back(studio, version, owner=owner, reason=reason), True
    except REFUSALS as error:
        return reason_of(error), False


def build_page(opening: Opening, visitors: Visitors) -> gr.Blocks:
    """The Blocks. Mount or launch them with `studio.theme`'s theme, style sheets and head."""
    with gr.Blocks(title="Thumbprint", analytics_enabled=False, fill_width=True) as page:
        visitor, tab = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
        seen = gr.State({})
        strip = gr.HTML(
            masthead(read_loop(opening)), apply_default_css=False, js_on_load=None, elem_id="strip"
        )
        with gr.Tabs(selected="chat", overflow_behavior="wrap"):
            with gr.Tab("Chat", id="chat", elem_id="chat"):
                chat_room(opening, visitors)
            rooms, tabs = {}, {}
            for name in ROOMS:
                with gr.Tab(name.capitalize(), id=name, elem_id=name, visible=name != "health") as tabs[name]:
                    rooms[name] = gr.HTML("", apply_default_css=False, js_on_load=asset("rooms.js"))
                    if name == "feedback":
                        feedback_browser(opening, visitors)
        shown = [strip, *rooms.values(), tabs["health"], seen]

        def look(who: str, where: str, had: Seen) -> list[Any]:
            updates, now_seen = pulse(opening, visitors, who, where, had)
            return [*updates, now_seen]

        def on_button(name: str) -> Callable[..., list[Any]]:
            def press(who: str, where: str, had: Seen, event: gr.EventData) -> list[Any]:
                sentence, done = act(opening, visitors, who, name, version=event.version, reason=event.reason)
                if not done:  # What was done shows in the room and in the strip.
                    gr.Warning(safe(sentence), duration=12, title="Not done")
                return look(who, where, had)

            return press

        quietly: dict[str, Any] = {
            "inputs": [visitor, tab, seen],
            "outputs": shown,
            "js": WHO_AND_WHERE,
            "show_progress": "hidden",
        }
        gr.Timer(TICK_SECONDS).tick(look, queue=False, **quietly)
        page.load(look, queue=False, **quietly)
        for name, item in tabs.items():
            item.select(
                look,
                queue=False,
                **quietly | {"js": f'(visitor, tab, seen) => [thumbprint.visitor(), "{name}", seen]'},
            )
        rooms["training"].retrain(on_button("retrain"), concurrency_limit=None, **quietly)
        rooms["training"].cancel_run(on_button("cancel_run"), concurrency_limit=None, **quietly)
        rooms["versions"].roll_back(on_button("roll_back"), concurrency_limit=None, **quietly)
    return page


def _if_new(name: str, drawn: str, seen: Seen) -> Any:
    """The HTML, unless this browser has it already. `seen` is brought up to date."""
    digest = hashlib.sha256(drawn.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    if seen.get(name) == digest:
        return gr.skip()
    seen[name] = digest
    return drawn
