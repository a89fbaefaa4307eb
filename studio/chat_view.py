"""What the chat shows: a conversation, its replies with their ratings, and the exchange under way, as plain
JSON values.

Reading only. Every reply is named by our own node and turn ids, never by its place. While a pair waits for a
vote, nothing in here tells its sides apart: no version, no letter. This module knows no page and no browser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from memory.schema import Comparison, Label, LabeledComparison, Node, Rating, Side
from studio import judging_view
from studio.exchange import Exchange, SideView
from studio.wording import every_so_many

if TYPE_CHECKING:
    from studio.build import Studio

Place = Literal["left", "right"]
Choice = Literal["left", "right", "tie", "both_bad"]
PLACES: tuple[Place, Place] = ("left", "right")
View = dict[str, Any]
SHOWN_AT_ONCE = 100
"""Messages that a page is given at first; it asks for earlier ones."""


def conversations(studio: Studio, owner: str) -> list[View]:
    """The owner's list, most recently used first."""
    return [
        {
            "id": item.id,
            "title": item.title or "New conversation",
            "updated_at": item.updated_at,
            "pinned": item.pinned,
        }
        for item in studio.chat.owned.list(owner)
    ]


def room(studio: Studio, owner: str, conversation_id: str | None) -> View:
    """Everything the chat shows of one conversation (None: an empty room), and the list beside it."""
    shared = {
        "conversations": conversations(studio, owner),
        "compared": _how_often(studio.settings.compare_every),
        "max_chars": studio.settings.max_message_chars,
        "judging": judging_view.choices(),
    }
    if conversation_id is None:
        return shared | {"conversation": None, "entries": [], "live": None}
    conversation = studio.chat.owned.get(owner, conversation_id)
    pending = studio.chat.pending(conversation_id, owner=owner)
    # Before the messages are read: what is said in between makes the page look again.
    as_of = stamp(studio, owner, conversation_id)
    path = studio.chat.owned.path(owner, conversation_id, last=SHOWN_AT_ONCE)
    return shared | {
        "conversation": {
            "id": conversation.id,
            "title": conversation.title or "New conversation",
            "system_prompt": conversation.system_prompt,
        },
        "stamp": as_of,
        "entries": entries(studio, owner, path, conversation_id=conversation_id),
        "earlier": studio.chat.owned.said_before(owner, path[0]) if path else 0,
        "live": None if pending is None else live(pending),
    }


def _how_often(compare_every: int) -> str:
    """``"Every third reply"``; empty where replies never come as pairs."""
    return every_so_many(compare_every).capitalize() if compare_every else ""


def stamp(studio: Studio, owner: str, conversation_id: str) -> str:
    """Changes whenever another tab has changed the conversation: its end, its name, its exchange or a
    judgement.
    """
    conversation = studio.chat.owned.get(owner, conversation_id)
    pending = studio.chat.pending(conversation_id, owner=owner)
    given = studio.feedback.given(conversation_id, owner, owner=owner)
    latest = max((judgement.created_at for judgement in given), default=0.0)
    parts = (conversation.head, conversation.title, pending and pending.id, len(given), latest)
    return "/".join(str(part) for part in parts)


def live(exchange: Exchange, *, seen: tuple[int, ...] = ()) -> View:
    """The exchange under way. `seen` says how many characters of each side the browser has; the rest is sent."""
    offsets = (*seen, 0, 0)
    view: View = {
        "id": exchange.id,
        "kind": exchange.kind,
        "state": state(exchange),
        "where": where(exchange),
        "user_node": exchange.user_node,
        "sides": [_side(side, offset) for side, offset in zip(exchange.sides, offsets, strict=False)],
        "notice": exchange.notice or exchange.unsaved,
        "error": exchange.error or bool(exchange.unsaved),
    }
    if exchange.vote is not None:
        view["voted"] = {
            "choice": choice_of(exchange, exchange.vote.label),
            "versions": [_served(side) for side in exchange.sides],
        }
    return view


def state(exchange: Exchange) -> Literal["writing", "vote", "unsaved", "over"]:
    """Being written; waiting for a vote; waiting for the disk; or over, and the conversation says the rest."""
    if exchange.under_way:
        return "writing"
    if exchange.unsaved:
        return "unsaved"
    if exchange.asks:
        return "vote"
    return "over" if exchange.done or not exchange.writes else "writing"


def where(exchange: Exchange) -> str:
    """Changes whenever the browser should look again, beside the texts: the state, and which sides ended or
    wait.
    """
    sides = ",".join(f"{int(side.stream.done)}{side.stream.waiting}" for side in exchange.sides)
    return f"{state(exchange)}:{sides}"


def choice_of(exchange: Exchange, label: Label) -> Choice:
    """Where on the page the chosen side stands."""
    if label not in ("A", "B"):
        return label
    return PLACES[[side.letter for side in exchange.sides].index(label)]


def label_at(comparison: Comparison, choice: str) -> Label | str:
    """The letter of the side that stood at this place of the page; ties, and what is no choice at all, as they are."""
    order: tuple[Side, Side] = ("A", "B") if comparison.shown_first == "A" else ("B", "A")
    return order[PLACES.index(choice)] if choice in PLACES else choice


def label_of(exchange: Exchange, choice: str) -> Label | str:
    """The letter of the side at this place of the page; ties, and what is no choice at all, as they are."""
    if choice in PLACES and exchange.kind == "pair":
        return exchange.sides[PLACES.index(choice)].letter
    return choice


def _side(side: SideView, offset: int) -> View:
    text = side.stream.text
    start = offset if 0 <= offset <= len(text) else 0
    return {
        "from": start,
        "to": len(text),
        "text": text[start:],
        "done": side.stream.done,
        "finish": side.stream.finish,
        "waiting": side.stream.waiting,
    }


def _served(side: SideView) -> View:
    return {"version": side.served.version, "fingerprint": side.served.fingerprint}


def entries(studio: Studio, owner: str, path: Sequence[Node], *, conversation_id: str) -> list[View]:
    """These messages of the conversation, replies with what the person said of them."""
    given = studio.feedback.given(conversation_id, owner, owner=owner)
    ratings = {item.turn_id: item.value for item in given if isinstance(item, Rating)}
    compared: dict[str, LabeledComparison] = {}
    for item in given:
        if isinstance(item, LabeledComparison):
            compared |= {item.comparison.turn_A: item, item.comparison.turn_B: item}
    judged = judging_view.by_turn(given)
    return [_entry(studio, owner, node, ratings=ratings, compared=compared, judged=judged) for node in path]


def _entry(
    studio: Studio,
    owner: str,
    node: Node,
    *,
    ratings: Mapping[str, int],
    compared: Mapping[str, LabeledComparison],
    judged: Mapping[str, View],
) -> View:
    view: View = {
        "node": node.id,
        "role": node.message.role,
        "text": node.message.content,
        "siblings": [sibling.id for sibling in studio.chat.owned.siblings(owner, node.id)],
    }
    if node.message.role != "assistant":
        return view
    if node.turn_id is None:
        return view | {"corrected": True}
    turn = studio.ledger.turn(node.turn_id)
    view |= {
        "turn": turn.id,
        "version": turn.policy_version,
        "fingerprint": turn.fingerprint,
        "finish": turn.finish,
        "rating": ratings.get(turn.id),
        "judged": judged.get(turn.id, {"scores": {}}),
    }
    if turn.id in compared:
        view["compared"] = _compared(compared[turn.id].comparison, compared[turn.id].label, turn.id)
    elif len(view["siblings"]) > 1 and (asked := studio.ledger.comparison_of_turn(turn.id)) is not None:
        view["compared"] = _compared(asked, None, turn.id)
    return view


def _compared(comparison: Comparison, label: Label | None, turn_id: str) -> View:
    """What the person chose between, seen from the reply that is shown. Without a choice no version is told."""
    shown: Side = "A" if comparison.turn_A == turn_id else "B"
    other = ("B", comparison.version_B, comparison.completion_B)
    if shown == "B":
        other = ("A", comparison.version_A, comparison.completion_A)
    order: tuple[Side, Side] = ("A", "B") if comparison.shown_first == "A" else ("B", "A")
    version = comparison.version_A if shown == "A" else comparison.version_B
    return {
        "id": comparison.id,
        "choice": PLACES[order.index(label)] if label in ("A", "B") else label,
        "place": PLACES[order.index(shown)],
        "version": version if label else "",
        "other_version": other[1] if label else "",
        "other_text": other[2],
    }
