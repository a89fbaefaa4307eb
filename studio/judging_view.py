"""What the chat shows of a person's judgements: by reply, as plain JSON values, so that they are found again.

Reading only; what a person said comes from the ledger, never from the page. This module knows no browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memory.schema import CRITERIA, Correction, Critique, Judgement, Ranking, Rating, Score

if TYPE_CHECKING:
    from studio.build import Studio

View = dict[str, Any]
REASONS = {
    "up": ("correct", "helpful", "well put", "to the point", "careful"),
    "down": ("wrong", "not what I asked", "too long", "too short", "badly put", "unsafe"),
}
"""The reasons that can be given for a thumb with one click."""


def choices() -> View:
    """What can be chosen from: the same for everybody."""
    return {"reasons": REASONS, "criteria": list(CRITERIA)}


def by_turn(given: Sequence[Judgement]) -> dict[str, View]:
    """What this person says of each reply, by the turn's id. `given` is in order of time."""
    found: dict[str, View] = {}

    def of(turn_id: str) -> View:
        return found.setdefault(turn_id, {"scores": {}})

    for said in given:
        match said:
            case Rating():
                of(said.turn_id).update(reasons=list(said.reasons), comment=said.comment)
            case Score():
                of(said.turn_id)["scores"][said.criterion] = said.value
            case Critique():
                of(said.turn_id)["critique"] = said.text
            case Correction():
                of(said.turn_id)["correction"] = said.text
            case Ranking():
                for place, turn_id in enumerate(said.turn_ids, 1):
                    of(turn_id)["rank"] = {"place": place, "of": len(said.turn_ids)}
            case _:
                pass  # A choice between two is shown with its pair.
    return found


def of_turn(studio: Studio, owner: str, turn_id: str, conversation_id: str) -> View:
    """What this person says of one reply now."""
    given = studio.feedback.given(conversation_id, owner, owner=owner)
    return by_turn(given).get(turn_id, {"scores": {}})


def replies(studio: Studio, owner: str, node_id: str) -> View:
    """The replies that can be ranked with this one, in the order in which they stand or were made; no versions."""
    candidates = studio.judging.candidates(node_id, owner=owner)
    known = {candidate.turn_id for candidate in candidates}
    conversation = studio.chat.owned.node(owner, node_id).conversation_id
    given = studio.feedback.given(conversation, owner, owner=owner)
    orders = [said.turn_ids for said in given if isinstance(said, Ranking) and set(said.turn_ids) <= known]
    standing = list(max(orders, key=len)) if orders else []
    place = {turn_id: at for at, turn_id in enumerate(standing)}
    candidates.sort(key=lambda candidate: place.get(candidate.turn_id, len(place)))
    return {
        "replies": [{"turn": candidate.turn_id, "text": candidate.text} for candidate in candidates],
        "standing": standing,
    }
