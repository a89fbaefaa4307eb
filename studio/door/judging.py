"""What clients say about replies, by receipt: kept in the ledger as their raters' own judgements.

The same thing said again changes nothing, so a client may repeat a request whose answer it missed. A comparison of two
receipts is a question of its own, the same for either order of the two. This module checks no receipt's signature (it
is handed what `studio.door.receipts` has read) and knows no HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from memory.conversations import Conversations
from memory.ledger import AlreadyRecorded, Ledger, UnknownComparison, UnknownTurn
from memory.schema import (
    Comparison,
    Correction,
    Critique,
    Judgement,
    Label,
    LabeledComparison,
    Message,
    Rating,
    Score,
    Turn,
)
from studio.door.problems import Problem
from studio.door.receipts import Receipt
from studio.door.shapes import OneReply
from studio.intake import clean_message

Outcome = Literal["recorded", "unchanged", "retracted"]
_OTHER: dict[Label, Label] = {"A": "B", "B": "A", "tie": "tie", "both_bad": "both_bad"}
_KINDS = {"thumb": "rating", "score": "score", "correction": "correction", "text": "critique"}
"""The ledger's kind of each judgement of a single reply."""


@dataclass(frozen=True)
class Taken:
    """One judgement as it was taken: its kind in the ledger, what it is about, and what became of it."""

    kind: str
    target: str
    outcome: Outcome


class Judging:
    """Takes feedback. Thread-safe. `max_chars` bounds texts, `clock` gives Unix seconds."""

    def __init__(
        self, ledger: Ledger, conversations: Conversations, *, max_chars: int, clock: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._conversations = conversations
        self._max_chars = max_chars
        self._clock = clock

    def judge(self, receipt: Receipt, said: OneReply, *, rater: str) -> list[Taken]:
        """Everything that `said` says about one reply. Raises `Problem`, `ChatRefused`, `StorageError`."""
        turn = self._turn(receipt)
        given = self._judgements(said, turn, rater=rater)
        taken = []
        for field in said.judged:
            kind = _KINDS[field]
            if getattr(said, field) is None:
                self._ledger.retract(kind, turn.id, rater)
                taken.append(Taken(kind, turn.id, "retracted"))
                continue
            fresh = [judgement for judgement in given[field] if not self._stands(judgement, turn)]
            for judgement in fresh:
                self._ledger.record(judgement)
            if field == "correction":
                self._show_correction(receipt, turn, given[field])
            taken.append(Taken(kind, turn.id, "recorded" if fresh else "unchanged"))
        return taken

    def compare(self, pair: Sequence[Receipt], label: Label | None, *, rater: str) -> Taken:
        """Which of two replies to one prompt is better; the letters are the places in `pair`. Raises `Problem`."""
        first, second = (self._turn(receipt) for receipt in pair)
        if first.id == second.id:
            raise Problem(400, "invalid_value", "receipts: both are for the same reply.", param="receipts")
        if first.prompt != second.prompt:
            raise Problem(
                400,
                "different_prompts",
                "receipts: the two replies answer different prompts. Compare only replies to the same messages.",
                param="receipts",
            )
        id = _comparison_id(first, second)
        if label is None:
            self._ledger.retract("comparison", id, rater)
            return Taken("comparison", id, "retracted")
        question = self._question(id, first, second)
        meant = label if question.turn_A == first.id else _OTHER[label]
        standing = self._ledger.label_of(id, rater)
        if standing is not None and standing.label == meant:
            return Taken("comparison", id, "unchanged")
        now = self._clock()
        seconds = max(0.0, now - max(first.created_at, second.created_at))
        self._ledger.record(LabeledComparison(question, meant, rater, seconds, now))
        return Taken("comparison", id, "recorded")

    def _turn(self, receipt: Receipt) -> Turn:
        try:
            return self._ledger.turn(receipt.turn_id)
        except UnknownTurn as error:
            raise Problem(
                409,
                "reply_under_way",
                "The reply of this receipt is not written down yet. Send this again when it has ended.",
                param="receipt",
                retry_after=1,
            ) from error

    def _judgements(self, said: OneReply, turn: Turn, *, rater: str) -> dict[str, list[Judgement]]:
        """What is to be recorded, by field, all checked before anything is."""
        now = self._clock()
        given: dict[str, list[Judgement]] = {}
        if said.thumb is not None:
            given["thumb"] = [Rating(turn.id, 1 if said.thumb == "up" else -1, rater, now)]
        if said.score is not None:
            given["score"] = [Score(turn.id, name, mark, rater, now) for name, mark in said.score.items()]
        if said.text is not None:
            given["text"] = [Critique(turn.id, clean_message(said.text, limit=self._max_chars), rater, now)]
        if said.correction is not None:
            corrected = clean_message(said.correction, limit=self._max_chars)
            if corrected.strip() == turn.completion.strip():
                raise Problem(
                    400, "invalid_value", "correction: it is the same as the reply.", param="correction"
                )
            given["correction"] = [Correction(turn.id, corrected, rater, now)]
        return given

    def _stands(self, judgement: Judgement, turn: Turn) -> bool:
        """Does the rater say exactly this already?"""
        standing = self._ledger.judgements_of(turn.conversation_id, judgement.rater)
        return any(replace(old, created_at=judgement.created_at) == judgement for old in standing)

    def _show_correction(self, receipt: Receipt, turn: Turn, given: Sequence[Judgement]) -> None:
        """The corrected text beside the reply, so that a history that goes on from it is known."""
        beside = self._conversations.children(turn.conversation_id, receipt.asked_node)
        for correction in given:
            assert isinstance(correction, Correction)
            message = Message("assistant", correction.text)
            if all(node.message != message for node in beside):
                self._conversations.append(turn.conversation_id, message, parent=receipt.asked_node)

    def _question(self, id: str, first: Turn, second: Turn) -> Comparison:
        """The recorded question about these two, or a new one. The client is taken to have shown the first one
        first.
        """
        asked = Comparison(
            id=id,
            conversation_id=first.conversation_id,
            prompt=first.prompt,
            turn_A=first.id,
            turn_B=second.id,
            completion_A=first.completion,
            completion_B=second.completion,
            version_A=first.policy_version,
            version_B=second.policy_version,
            shown_first="A",
            created_at=self._clock(),
        )
        try:
            return self._ledger.comparison(id)
        except UnknownComparison:
            try:
                self._ledger.record_comparison(asked)
            except AlreadyRecorded:  # somebody else asked at the same moment; that question counts
                return self._ledger.comparison(id)
            return asked


def _comparison_id(first: Turn, second: Turn) -> str:
    pair = "\n".join(sorted((first.id, second.id)))
    return hashlib.sha256(f"compared by receipts\n{pair}".encode()).hexdigest()[:32]
