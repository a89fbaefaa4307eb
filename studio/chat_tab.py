"""The chat: what a person may do in it, as plain functions, and the component that the browser draws it in.

Each handler takes the studio, the owner and what the browser sent, and returns what to show. `call` is the
only door: it says who is asking, and turns a refusal into a sentence, so that typed text is never lost.
`follow` is how a reply streams: the browser asks for what is new, and is answered as soon as there is
something. All state lives in the studio; this module knows nothing about how a reply is made or kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from memory.database import StorageError
from studio import chat_view, judging_tab, remembering_tab
from studio.chat_view import View
from studio.intake import ChatRefused, clean_message
from studio.judging import ConsentMissing
from studio.opening import Opening
from studio.policy.interface import Busy
from studio.theme import asset
from studio.visitors import Visitors
from studio.wording import reason_of

if TYPE_CHECKING:
    from studio.build import Studio
    from studio.exchange import Exchange

logger = logging.getLogger(__name__)

Sent = Mapping[str, Any]
LOOKS_PER_SECOND = 20
LONGEST_WAIT_SECONDS = 8.0
FOLLOWERS_PER_STEP = 8
"""So many replies are followed at full rate; with more of them, each is looked at less often."""


def open_room(studio: Studio, owner: str, sent: Sent) -> View:
    """Show a conversation; without one, or with one that is gone, the latest, or an empty room."""
    wanted = sent.get("conversation")
    known = [item["id"] for item in chat_view.conversations(studio, owner)]
    if wanted is None or wanted == "":
        return {"room": chat_view.room(studio, owner, None)}
    if wanted == "latest" or wanted not in known:
        wanted = known[0] if known else None
    return {"room": chat_view.room(studio, owner, wanted)}


def send(studio: Studio, owner: str, sent: Sent) -> View:
    """Say something, in a new conversation if none is open."""
    conversation_id = sent.get("conversation")
    text = str(sent.get("text", ""))
    if conversation_id:
        studio.chat.send(owner, str(conversation_id), text)
        return {"room": chat_view.room(studio, owner, str(conversation_id))}
    clean_message(text, limit=studio.settings.max_message_chars)
    begun = studio.chat.owned.begin(owner)
    try:
        if sent.get("system_prompt"):
            studio.chat.owned.set_system_prompt(owner, begun.id, str(sent["system_prompt"]))
        studio.chat.send(owner, begun.id, text)
    except (ChatRefused, StorageError, Busy):
        studio.chat.owned.hide(owner, begun.id)
        raise
    return {"room": chat_view.room(studio, owner, begun.id)}


def retry(studio: Studio, owner: str, sent: Sent) -> View:
    """Another reply in place of this one. It is no judgement of the first."""
    exchange = studio.chat.retry(owner, str(sent.get("conversation")), str(sent.get("node")))
    return {"room": chat_view.room(studio, owner, exchange.conversation_id)}


def edit(studio: Studio, owner: str, sent: Sent) -> View:
    """Say something else in place of an earlier message; the earlier one stays beside it."""
    exchange = studio.chat.edit_user(owner, str(sent.get("node")), str(sent.get("text", "")))
    return {"room": chat_view.room(studio, owner, exchange.conversation_id)}


def correct(studio: Studio, owner: str, sent: Sent) -> View:
    """A reply as the person would have written it."""
    node = studio.feedback.correct(
        str(sent.get("turn")),
        str(sent.get("text", "")),
        owner,
        owner=owner,
        guidelines=judging_tab.shown(studio, sent),
    )
    say = "Kept as a better answer. The next retraining learns from it."
    return {"room": chat_view.room(studio, owner, node.conversation_id), "say": say}


def stop(studio: Studio, owner: str, sent: Sent) -> View:
    """End the reply being written; what is there stays, and says nothing about its quality."""
    studio.chat.stop(str(sent.get("exchange")), owner=owner)
    return {}


def vote(studio: Studio, owner: str, sent: Sent) -> View:
    """Which of the two is better; the versions are told afterwards."""
    exchange = studio.chat.exchange(str(sent.get("exchange")), owner=owner)
    label = chat_view.label_of(exchange, str(sent.get("choice")))
    shown = judging_tab.shown(studio, sent)
    reveal = studio.chat.vote(exchange.id, label, owner, owner=owner, guidelines=shown)  # type: ignore[arg-type]
    readiness = studio.retraining.readiness()
    say = reveal.message if readiness.ready else f"{reveal.message} {readiness.sentence}"
    return {
        "room": chat_view.room(studio, owner, exchange.conversation_id),
        "say": say,
        "live": _unless_over(exchange),
    }


def skip(studio: Studio, owner: str, sent: Sent) -> View:
    """Go on without a judgement."""
    exchange = studio.chat.skip(str(sent.get("exchange")), owner=owner)
    return {"room": chat_view.room(studio, owner, exchange.conversation_id)}


def show(studio: Studio, owner: str, sent: Sent) -> View:
    """Show the branch of the conversation that goes through this message."""
    node = studio.chat.owned.node(owner, str(sent.get("node")))
    studio.chat.owned.show(owner, node.id)
    return {"room": chat_view.room(studio, owner, node.conversation_id)}


def rename(studio: Studio, owner: str, sent: Sent) -> View:
    """Give a conversation another title."""
    studio.chat.owned.rename(owner, str(sent.get("conversation")), str(sent.get("title", "")))
    return {"conversations": chat_view.conversations(studio, owner)}


def hide(studio: Studio, owner: str, sent: Sent) -> View:
    """Take a conversation off the list. Its judgements stay, because versions were trained on them."""
    studio.chat.owned.hide(owner, str(sent.get("conversation")))
    return {"conversations": chat_view.conversations(studio, owner)}


def instruct(studio: Studio, owner: str, sent: Sent) -> View:
    """Change the system prompt, from the next reply on."""
    conversation_id = str(sent.get("conversation"))
    studio.chat.owned.set_system_prompt(owner, conversation_id, str(sent.get("text", "")))
    say = "Saved. The next reply follows it."
    return {"room": chat_view.room(studio, owner, conversation_id), "say": say}


def glance(studio: Studio, owner: str, sent: Sent) -> View:
    """Has another tab changed this conversation?"""
    return {"stamp": chat_view.stamp(studio, owner, str(sent.get("conversation")))}


ACTIONS: dict[str, Callable[[Studio, str, Sent], View]] = {
    "open": open_room,
    "send": send,
    "retry": retry,
    "edit": edit,
    "correct": correct,
    "stop": stop,
    "vote": vote,
    "skip": skip,
    "show": show,
    "rename": rename,
    "hide": hide,
    "instruct": instruct,
    "glance": glance,
    **judging_tab.ACTIONS,
    **remembering_tab.ACTIONS,
}
"""Everything the browser may ask for, by name."""


def call(opening: Opening, visitors: Visitors, sent: Any) -> View:
    """Do what the browser asks. A refusal comes back as ``{"refused": sentence}``: nothing was changed."""
    if opening.studio is None:
        return {"opening": True, "problem": opening.problem}
    if not isinstance(sent, dict) or sent.get("action") not in ACTIONS:
        return {"refused": "The studio did not understand this page. Reload it."}
    try:
        owner = visitors.owner(sent.get("visitor"))
        if sent["action"] in judging_tab.NEED_CONSENT:
            opening.studio.judging.require_consent(owner)
        return ACTIONS[sent["action"]](opening.studio, owner, sent)
    except ConsentMissing as missing:
        return {"refused": str(missing)} | judging_tab.missing_consent()
    except (ChatRefused, Busy, StorageError) as error:
        return {"refused": reason_of(error)}
    except Exception:
        logger.exception("The chat could not do %r", sent["action"])
        return {
            "refused": "Something went wrong in the studio. It is in the studio's log; your text is kept here."
        }


async def follow(opening: Opening, visitors: Visitors, sent: Any, *, followers: list[int]) -> View:
    """What is new in an exchange, as soon as there is something, or after some seconds of nothing.

    `followers` holds one number: how many are waiting here at the moment. With many, each looks less often,
    so that the page's share of the processor stays bounded while the policy is writing for all of them.
    """
    studio = opening.studio
    if studio is None or not isinstance(sent, dict):
        return {"opening": True, "problem": opening.problem}
    seen = tuple(int(value) for value in sent.get("seen", ()) if isinstance(value, int))[:2]
    try:
        owner = visitors.owner(sent.get("visitor"))
        exchange = await asyncio.to_thread(studio.chat.exchange, str(sent.get("exchange")), owner=owner)
    except (ChatRefused, StorageError) as error:
        return {"refused": reason_of(error)}
    followers[0] += 1
    try:
        await _until_news(exchange, seen, known=sent.get("known"), followers=followers)
    finally:
        followers[0] -= 1
    return {"live": chat_view.live(exchange, seen=seen)}


async def _until_news(
    exchange: Exchange, seen: tuple[int, ...], *, known: object, followers: list[int]
) -> None:
    waited = 0.0
    while waited < LONGEST_WAIT_SECONDS:
        grown = any(
            len(side.stream.text) > at for side, at in zip(exchange.sides, (*seen, 0, 0), strict=False)
        )
        if grown or chat_view.where(exchange) != known:
            return
        pause = max(1.0, followers[0] / FOLLOWERS_PER_STEP) / LOOKS_PER_SECOND
        await asyncio.sleep(pause)
        waited += pause


def _unless_over(exchange: Exchange) -> View | None:
    return None if chat_view.state(exchange) == "over" else chat_view.live(exchange)


def chat_room(opening: Opening, visitors: Visitors) -> gr.HTML:
    """The component. Its script draws the room; `call` and `follow` are its two ways to the studio."""
    followers = [0]

    def call_studio(sent: Any) -> View:
        return call(opening, visitors, sent)

    async def follow_exchange(sent: Any) -> View:
        return await follow(opening, visitors, sent, followers=followers)

    return gr.HTML(
        html_template='<div class="tp chat" id="chat-room"></div>',
        js_on_load=asset("chat.js"),
        server_functions=[call_studio, follow_exchange],
        apply_default_css=False,
        elem_id="room",
    )
