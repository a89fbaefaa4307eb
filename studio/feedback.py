"""What a person says about replies, outside of blind pairs: a thumb, a corrected text.

Judgements go to the ledger as the rater's own; a changed mind is a new event, and taking one back is an
event too. Blind pairs are judged in `studio.chat`, because the conversation goes on from the choice. This
module knows no page, no policy and no training, and it never judges anything by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

from memory.conversations import Conversations
from memory.ledger import Ledger
from memory.schema import Correction, Judgement, Message, Node, Rating, Turn
from studio.intake import ChatRefused, clean_message
from studio.owned import NOT_HERE, OwnedConversations


class FeedbackService:
    """Takes judgements about single replies. Raises `ChatRefused` for what is not the owner's; thread-safe.

    `max_chars` bounds corrections and comments; `clock` gives Unix seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        conversations: Conversations,
        *,
        max_chars: int = 20_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._conversations = conversations
        self._owned = OwnedConversations(conversations)
        self._max_chars = max_chars
        self._clock = clock

    def rate(
        self,
        turn_id: str,
        value: Literal[-1, 1] | None,
        rater: str,
        *,
        owner: str,
        reasons: Sequence[str] = (),
        comment: str = "",
        guidelines: str = "",
    ) -> Rating | None:
        """A thumb up (1) or down (-1), or None to take it back. Returns what stands now. `guidelines` names the
        version that the rater was shown."""
        self._turn(owner, turn_id)
        if value is None:
            self._ledger.retract("rating", turn_id, rater)
            return None
        said = clean_message(comment, limit=self._max_chars) if comment.strip() else ""
        rating = Rating(turn_id, value, rater, self._clock(), tuple(reasons), said)
        self._ledger.record(rating, guidelines=guidelines)
        return rating

    def correct(self, turn_id: str, text: str, rater: str, *, owner: str, guidelines: str = "") -> Node:
        """The reply as the person would have written it, beside the original and shown from now on.

        The correction's node names no turn: a person wrote it, so there is nothing in it to rate. Raises
        `ChatRefused` when the text is empty, too long, or what the policy had said already.
        """
        turn = self._turn(owner, turn_id)
        corrected = clean_message(text, limit=self._max_chars)
        if corrected.strip() == turn.completion.strip():
            raise ChatRefused(
                "The text is the same as the reply, so there is nothing to correct. Change it first."
            )
        original = self._node_of(turn)
        self._ledger.record(Correction(turn_id, corrected, rater, self._clock()), guidelines=guidelines)
        for sibling in self._conversations.siblings(original.id):
            if sibling.turn_id is None and sibling.message.content == corrected:
                self._conversations.set_head(turn.conversation_id, sibling.id)
                return sibling
        return self._conversations.append(
            turn.conversation_id, Message("assistant", corrected), parent=original.parent
        )

    def turn_of(self, node_id: str, rater: str, *, owner: str) -> str | None:
        """The turn that an assistant's message is or corrects; None when it belongs to no turn of this
        rater's.
        """
        node = self._owned.node(owner, node_id)
        if node.turn_id is not None:
            return node.turn_id
        beside = {sibling.turn_id for sibling in self._conversations.siblings(node_id)}
        for judgement in self._ledger.judgements_of(node.conversation_id, rater):
            if not isinstance(judgement, Correction) or judgement.turn_id not in beside:
                continue
            if judgement.text == node.message.content:
                return judgement.turn_id
        return None

    def given(self, conversation_id: str, rater: str, *, owner: str) -> list[Judgement]:
        """Everything this rater has said about this conversation and stands by, to show it again: also what was said
        of its replies where it branched off from."""
        self._owned.get(owner, conversation_id)
        said_in = [conversation_id, *self._conversations.lenders(conversation_id)]
        return [judgement for place in said_in for judgement in self._ledger.judgements_of(place, rater)]

    def _turn(self, owner: str, turn_id: str) -> Turn:
        try:
            turn = self._ledger.turn(turn_id)
        except KeyError as error:
            raise ChatRefused(NOT_HERE) from error
        self._owned.get(owner, turn.conversation_id)
        return turn

    def _node_of(self, turn: Turn) -> Node:
        """The message that shows the turn: on the path, or beside a message on the path."""
        for node in reversed(self._conversations.path(turn.conversation_id)):
            for near in self._conversations.siblings(node.id):
                if near.turn_id == turn.id:
                    return near
        raise ChatRefused(
            "This reply is not in the part of the conversation being shown. Open it and correct it there."
        )
