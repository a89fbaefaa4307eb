"""Everything a person may say about replies beside the vote on a pair that waits: marks, words, an order, a changed
mind.

Each judgement goes to the ledger as the rater's own, with the version of the guidelines they were shown. Before the
first one they may have to agree to its being kept. Refused, in the same words, is whatever is not the owner's. This
module knows no page, no policy and no training, and it never judges anything by itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memory.conversations import Conversations
from memory.database import Database
from memory.events import ranking_target
from memory.ledger import Ledger
from memory.schema import (
    CRITERIA,
    LABELS,
    Comparison,
    Critique,
    Label,
    LabeledComparison,
    Occurrence,
    Ranking,
    Score,
    Turn,
)
from memory.second_thoughts import undo_last
from studio.guidelines import Guidelines
from studio.intake import ChatRefused, clean_message
from studio.owned import NOT_HERE, OwnedConversations

CONSENT = (
    "Your messages, the replies and what you say about them are kept in this studio's ledger.",
    "New versions of the model are trained on them, and the operator can read and export them.",
    "They are kept under a random number that your browser made, not under your name or address.",
    "You can change or take back any judgement. Versions that have learned from it are not unmade by that.",
)
"""What a person is told before anything they judge is kept."""
CONSENT_VERSION = f"c-{hashlib.sha256(' '.join(CONSENT).encode()).hexdigest()[:12]}"
MOST_RANKED = 9


class ConsentMissing(ChatRefused):
    """The person has not yet agreed to their judgements being kept."""


@dataclass(frozen=True)
class Candidate:
    """A reply that may be ranked with others to the same prompt."""

    turn_id: str
    text: str


class Judging:
    """Takes judgements of an owner's replies. Raises `ChatRefused` for what is not theirs; thread-safe."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        conversations: Conversations,
        guidelines: Guidelines,
        *,
        ask_consent: bool,
        max_chars: int = 20_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.guidelines = guidelines
        self._database, self._ledger, self._conversations = database, ledger, conversations
        self._owned = OwnedConversations(conversations)
        self._ask_consent, self._max_chars, self._clock = ask_consent, max_chars, clock

    def require_consent(self, owner: str) -> None:
        """Raises `ConsentMissing` where consent is asked for and this person has not given it."""
        if self._ask_consent and self._ledger.noted("consent", CONSENT_VERSION, owner) is None:
            raise ConsentMissing("Nothing was kept: agree first to your judgements being kept.")

    def consent(self, owner: str) -> None:
        """The person agrees, once, to what `CONSENT` says."""
        if self._ledger.noted("consent", CONSENT_VERSION, owner) is None:
            detail = {"text": "\n".join(CONSENT)}
            self._ledger.note(Occurrence("consent", CONSENT_VERSION, owner, self._clock(), detail))

    def score(
        self, turn_id: str, criterion: str, value: int | None, *, owner: str, guidelines: str = ""
    ) -> Turn:
        """A mark from 1 to 5 on one criterion, or None to take that one back."""
        turn = self.turn(owner, turn_id)
        if criterion not in CRITERIA or (value is not None and value not in range(1, 6)):
            raise ChatRefused(
                f"The mark is {value!r} for {criterion!r}; expected 1 to 5 for one of {', '.join(CRITERIA)}."
            )
        if value is None:
            self._ledger.retract("score", turn_id, owner, criterion=criterion)
        else:
            said = Score(turn_id, criterion, value, owner, self._clock())  # type: ignore[arg-type]
            self._ledger.record(said, guidelines=guidelines)
        return turn

    def critique(self, turn_id: str, text: str, *, owner: str, guidelines: str = "") -> Turn:
        """What is good or bad about the reply, in words; no words take it back."""
        turn = self.turn(owner, turn_id)
        if not text.strip():
            self._ledger.retract("critique", turn_id, owner)
        else:
            words = clean_message(text, limit=self._max_chars)
            self._ledger.record(Critique(turn_id, words, owner, self._clock()), guidelines=guidelines)
        return turn

    def candidates(self, node_id: str, *, owner: str) -> list[Candidate]:
        """The replies beside this message, and itself, that answer exactly the same prompt: what may be ranked."""
        node = self._owned.node(owner, node_id)
        if node.turn_id is None:
            raise ChatRefused("A reply that a person wrote is not ranked with others.")
        prompt = self._ledger.turn(node.turn_id).prompt
        beside = self._conversations.siblings(node_id)
        turns = self._ledger.turns_named([found.turn_id for found in beside if found.turn_id is not None])
        alike = [
            Candidate(found.turn_id, found.message.content)
            for found in beside
            if found.turn_id in turns and turns[found.turn_id].prompt == prompt
        ]
        return alike[-MOST_RANKED:]

    def rank(self, turn_ids: Sequence[str], *, owner: str, guidelines: str = "") -> Turn:
        """Replies to one prompt, best first."""
        turns = [self.turn(owner, turn_id) for turn_id in turn_ids]
        try:
            said = Ranking(tuple(turn_ids), owner, self._clock())
            self._ledger.record(said, guidelines=guidelines)
        except ValueError as error:
            raise ChatRefused(str(error)) from error
        return turns[0]

    def unrank(self, turn_ids: Sequence[str], *, owner: str) -> Turn:
        """Take the order of these replies back."""
        turns = [self.turn(owner, turn_id) for turn_id in turn_ids]
        if not turns:
            raise ChatRefused("There is no order to take back.")
        self._ledger.retract("ranking", ranking_target(tuple(turn_ids)), owner)
        return turns[0]

    def vote_again(
        self, comparison_id: str, label: Label | None, *, owner: str, guidelines: str = ""
    ) -> Comparison:
        """Another answer to a pair that was judged before, or None to take the answer back.

        The conversation stays where it went on. The time of the first vote is kept: nobody measures how long a
        changed mind took.
        """
        asked = self.question(owner, comparison_id)
        if label is not None and label not in LABELS:
            raise ChatRefused(f"The choice is {label!r}; expected one of {', '.join(LABELS)}.")
        if label is None:
            self._ledger.retract("comparison", comparison_id, owner)
            return asked
        before = self._ledger.label_of(comparison_id, owner)
        seconds = before.seconds if before is not None else 0.0
        said = LabeledComparison(asked, label, owner, seconds, self._clock())
        self._ledger.record(said, guidelines=guidelines)
        return asked

    def undo(self, conversation_id: str, *, owner: str) -> str | None:
        """Take back the last thing said about this conversation's replies; gives its kind, None if there is none."""
        self._owned.get(owner, conversation_id)
        return undo_last(self._database, conversation_id, owner)

    def question(self, owner: str, comparison_id: str) -> Comparison:
        """The pair, when it is of one of the owner's conversations."""
        try:
            asked = self._ledger.comparison(comparison_id)
        except KeyError as error:
            raise ChatRefused(NOT_HERE) from error
        self._owned.get(owner, asked.conversation_id)
        return asked

    def turn(self, owner: str, turn_id: str) -> Turn:
        """The reply, when it is of one of the owner's conversations."""
        try:
            turn = self._ledger.turn(turn_id)
        except KeyError as error:
            raise ChatRefused(NOT_HERE) from error
        self._owned.get(owner, turn.conversation_id)
        return turn
