"""What a person may do to judge a reply, as the chat's handlers: plain functions of studio, owner and what was sent.

Each returns what to show; a refusal is raised and said by `studio.chat_tab.call`. All state lives in the studio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from studio import chat_view, judging_view
from studio.chat_view import View
from studio.intake import ChatRefused
from studio.judging import CONSENT

if TYPE_CHECKING:
    from studio.build import Studio

Sent = Mapping[str, Any]
_UNDONE = {
    "rating": "thumb",
    "comparison": "choice",
    "ranking": "order",
    "score": "mark",
    "critique": "critique",
    "correction": "correction",
}


def rate(studio: Studio, owner: str, sent: Sent) -> View:
    """A thumb, with reasons and a comment where there are any, or none."""
    value = {1: 1, -1: -1}.get(sent.get("value") or 0)
    turn_id = str(sent.get("turn"))
    reasons = [str(reason)[:80] for reason in sent.get("reasons") or ()][:12]
    standing = studio.feedback.rate(
        turn_id,
        value,  # type: ignore[arg-type]
        owner,
        owner=owner,
        reasons=reasons,
        comment=str(sent.get("comment") or ""),
        guidelines=shown(studio, sent),
    )
    return {
        "rating": standing.value if standing else None,
        "judged": _judged(studio, owner, turn_id),
        "say": "Kept." if standing else "Taken back.",
        "undo": True,
    }


def score(studio: Studio, owner: str, sent: Sent) -> View:
    """A mark on one criterion; the same mark again takes it back."""
    value = sent.get("value")
    mark = value if isinstance(value, int) and not isinstance(value, bool) else None
    turn = studio.judging.score(
        str(sent.get("turn")), str(sent.get("criterion")), mark, owner=owner, guidelines=shown(studio, sent)
    )
    say = f"{str(sent.get('criterion')).capitalize()}: {mark} of 5." if mark else "Taken back."
    return {"judged": _judged(studio, owner, turn.id), "say": say, "undo": True}


def critique(studio: Studio, owner: str, sent: Sent) -> View:
    """What is good or bad about it, in words; empty words take it back."""
    text = str(sent.get("text") or "")
    turn = studio.judging.critique(str(sent.get("turn")), text, owner=owner, guidelines=shown(studio, sent))
    say = "Your words are kept." if text.strip() else "Taken back."
    return {"judged": _judged(studio, owner, turn.id), "say": say, "undo": True}


def replies(studio: Studio, owner: str, sent: Sent) -> View:
    """The replies that can be put in order with this one."""
    return judging_view.replies(studio, owner, str(sent.get("node")))


def rank(studio: Studio, owner: str, sent: Sent) -> View:
    """Replies in order, best first, or with `forget` their order taken back."""
    turns = [str(turn) for turn in sent.get("turns") or ()]
    if sent.get("forget"):
        turn = studio.judging.unrank(turns, owner=owner)
        say = "The order is taken back."
    else:
        turn = studio.judging.rank(turns, owner=owner, guidelines=shown(studio, sent))
        say = f"The order of {len(turns)} replies is kept."
    return {"room": chat_view.room(studio, owner, turn.conversation_id), "say": say, "undo": True}


def vote_again(studio: Studio, owner: str, sent: Sent) -> View:
    """Another choice for a pair that was judged before; no choice takes it back."""
    choice, comparison_id = sent.get("choice"), str(sent.get("comparison"))
    label = None
    if choice is not None:
        label = chat_view.label_at(studio.judging.question(owner, comparison_id), str(choice))
    asked = studio.judging.vote_again(
        comparison_id,
        label,  # type: ignore[arg-type]
        owner=owner,
        guidelines=shown(studio, sent),
    )
    say = "Your choice is changed." if label else "Your choice is taken back."
    return {"room": chat_view.room(studio, owner, asked.conversation_id), "say": say, "undo": True}


def undo(studio: Studio, owner: str, sent: Sent) -> View:
    """Put back what stood before the last thing said."""
    conversation_id = str(sent.get("conversation"))
    kind = studio.judging.undo(conversation_id, owner=owner)
    if kind is None:
        raise ChatRefused("There is nothing to undo in this conversation.")
    say = f"Undone: the {_UNDONE[kind]} is as it was before."
    return {"room": chat_view.room(studio, owner, conversation_id), "say": say}


def guidelines(studio: Studio, owner: str, sent: Sent) -> View:
    """What to look for."""
    current = studio.judging.guidelines.current()
    return {"guidelines": {"version": current.version, "text": current.text}}


def consent(studio: Studio, owner: str, sent: Sent) -> View:
    """The person agrees to their judgements being kept."""
    studio.judging.consent(owner)
    return {}


ACTIONS: dict[str, Callable[[Studio, str, Sent], View]] = {
    "rate": rate,
    "score": score,
    "critique": critique,
    "replies": replies,
    "rank": rank,
    "vote_again": vote_again,
    "undo": undo,
    "guidelines": guidelines,
    "consent": consent,
}
NEED_CONSENT = frozenset({"rate", "score", "critique", "rank", "vote_again", "vote", "correct"})
"""The actions that keep a judgement."""


def missing_consent() -> View:
    """What the page asks before the first judgement."""
    return {"consent": list(CONSENT)}


def shown(studio: Studio, sent: Sent) -> str:
    """The version of the guidelines that the page showed."""
    return studio.judging.guidelines.shown(sent.get("guidelines"))


def _judged(studio: Studio, owner: str, turn_id: str) -> View:
    conversation_id = studio.judging.turn(owner, turn_id).conversation_id
    return judging_view.of_turn(studio, owner, turn_id, conversation_id)
