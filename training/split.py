"""Which conversations are trained on and which are kept aside to examine the result by.

The side of a conversation follows from a hash of its id: a fixed share is held out, and while that is too little to
examine anything by, the conversations next in line as well. So as the ledger grows a conversation may move from
held-out to training, but never back, and nothing that examines an adapter was ever trained on by an earlier one. A
held-out row whose prompt also occurs in training counts as training, because answering it again would prove nothing.

Pure; it knows no ledger and no model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence, Set
from typing import Protocol, TypeVar

from memory.schema import Message

Prompt = tuple[Message, ...]
SPLIT_SEED = 0
"""The seed of the split. Fixed, so that no retraining ever trains on what an earlier one was examined by."""
MOST_HELDOUT = 0.5
"""Largest share of conversations held out while there is little to examine by."""


class Placed(Protocol):
    """Anything that belongs to a conversation and answers a prompt."""

    @property
    def conversation_id(self) -> str: ...

    @property
    def prompt(self) -> Prompt: ...


PlacedT = TypeVar("PlacedT", bound=Placed)


def split(
    rows: Sequence[PlacedT], *, share: float, seed: int = SPLIT_SEED, taught: Set[Prompt] = frozenset()
) -> tuple[tuple[PlacedT, ...], tuple[PlacedT, ...]]:
    """(train, heldout): by conversation, never by row. A prompt on both sides or in `taught` goes to training."""
    keys = [prompt_key(row.prompt) for row in rows]
    inside = {
        key for row, key in zip(rows, keys, strict=True) if place(row.conversation_id, seed=seed) >= share
    } | taught
    train = tuple(row for row, key in zip(rows, keys, strict=True) if key in inside)
    heldout = tuple(row for row, key in zip(rows, keys, strict=True) if key not in inside)
    return train, heldout


def place(conversation_id: str, *, seed: int = SPLIT_SEED) -> float:
    """Where a conversation stands in the line to be held out, from 0 (first) to 1: 64 bits of SHA-256 as a fraction."""
    digest = hashlib.sha256(f"{seed}:{conversation_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def cut_for(rows: Sequence[PlacedT], *, share: float, least: int, seed: int = SPLIT_SEED) -> float:
    """The share to hold out: `share`, or the smallest larger one, up to `MOST_HELDOUT`, that holds out `least` rows."""
    places = {place(row.conversation_id, seed=seed) for row in rows}
    beyond = sorted(math.nextafter(spot, 1) for spot in places if share <= spot < MOST_HELDOUT)
    for cut in (share, *beyond):
        if len(split(rows, share=cut, seed=seed)[1]) >= least:
            return cut
    return max(share, MOST_HELDOUT)


def prompt_key(prompt: Prompt) -> Prompt:
    """What makes two prompts the same question: who said what, without case, spacing and system message."""
    return tuple(
        Message(message.role, " ".join(message.content.casefold().split()))
        for message in prompt
        if message.role != "system"
    )
