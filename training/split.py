"""Which conversations are trained on and which are kept aside to examine the result by.

The side of a conversation follows from a hash of its id: a fixed share is held out, and while that is too little to
examine anything by, the conversations next in line as well. So as the ledger grows a conversation may move from
held-out to training, but never back, and nothing that examines an adapter was ever trained on by an earlier one.
Answering a prompt that also occurs in training would prove nothing. So what was said of such a prompt in a held-out
conversation is left out altogether: no conversation and no prompt stands on both sides. (Moving the conversation for it
would move whoever shares another prompt with it as well, and soon everybody who begins with "Hello".) Only a
conversation that has no other prompts counts as training.

Where many people judge, ``by="rater"`` places raters instead: nobody who examines an adapter has taught it. What a
held-out rater said of a prompt or a conversation that is trained on is then left out too.

Pure; it knows no ledger and no model.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from typing import Literal, Protocol, TypeVar

from memory.schema import Message

Prompt = tuple[Message, ...]
HeldoutBy = Literal["conversation", "rater"]
SPLIT_SEED = 0
"""The seed of the split. Fixed, so that no retraining ever trains on what an earlier one was examined by."""
MOST_HELDOUT = 0.5
"""Largest share of conversations held out while there is little to examine by."""


class Placed(Protocol):
    """Anything that belongs to a conversation, answers a prompt, and was said by a rater (empty: by nobody)."""

    @property
    def conversation_id(self) -> str: ...

    @property
    def prompt(self) -> Prompt: ...

    @property
    def rater(self) -> str: ...


PlacedT = TypeVar("PlacedT", bound=Placed)


def split(
    rows: Sequence[PlacedT],
    *,
    share: float,
    seed: int = SPLIT_SEED,
    taught: Set[Prompt] = frozenset(),
    by: HeldoutBy = "conversation",
) -> tuple[tuple[PlacedT, ...], tuple[PlacedT, ...]]:
    """(train, heldout), never by row. `taught` are the `prompt_key`s of further prompts that are trained on."""
    keys = [prompt_key(row.prompt) for row in rows]
    if by == "rater":
        return _split_by_rater(rows, keys, share=share, seed=seed, taught=taught)
    prompts: dict[str, set[Prompt]] = defaultdict(set)
    for row, key in zip(rows, keys, strict=True):
        prompts[row.conversation_id].add(key)
    trained = {name for name in prompts if place(name, seed=seed) >= share}
    known = set(taught).union(*(prompts[name] for name in trained))
    trained |= {name for name, said in prompts.items() if said <= known}
    placed = list(zip(rows, keys, strict=True))
    train = tuple(row for row, _ in placed if row.conversation_id in trained)
    heldout = tuple(row for row, key in placed if row.conversation_id not in trained and key not in known)
    return train, heldout


def _split_by_rater(
    rows: Sequence[PlacedT], keys: Sequence[Prompt], *, share: float, seed: int, taught: Set[Prompt]
) -> tuple[tuple[PlacedT, ...], tuple[PlacedT, ...]]:
    inside = [place(row.rater or row.conversation_id, seed=seed) >= share for row in rows]
    known = {key for key, trained in zip(keys, inside, strict=True) if trained} | taught
    talks = {row.conversation_id for row, trained in zip(rows, inside, strict=True) if trained}
    train = tuple(row for row, trained in zip(rows, inside, strict=True) if trained)
    heldout = tuple(
        row
        for row, key, trained in zip(rows, keys, inside, strict=True)
        if not trained and key not in known and row.conversation_id not in talks
    )
    return train, heldout


def place(name: str, *, seed: int = SPLIT_SEED) -> float:
    """Where a conversation (or a rater) stands in the line to be held out, from 0 (first) to 1: 64 bits of SHA-256 as
    a fraction."""
    digest = hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def cut_for(
    rows: Sequence[PlacedT],
    *,
    share: float,
    least: int,
    seed: int = SPLIT_SEED,
    by: HeldoutBy = "conversation",
    count: Callable[[Sequence[PlacedT]], int] = len,
) -> float:
    """The share to hold out: `share`, or the smallest larger one, up to `MOST_HELDOUT`, that holds out `least` by
    `count`, which must not fall as rows are added."""
    names = {(by == "rater" and row.rater) or row.conversation_id for row in rows}
    beyond = sorted(
        math.nextafter(spot, 1)
        for spot in (place(name, seed=seed) for name in names)
        if share <= spot < MOST_HELDOUT
    )
    cuts = [share, *beyond]
    found = bisect_left(
        cuts, True, key=lambda cut: count(split(rows, share=cut, seed=seed, by=by)[1]) >= least
    )
    return cuts[found] if found < len(cuts) else max(share, MOST_HELDOUT)


def prompt_key(prompt: Prompt) -> Prompt:
    """What makes two prompts the same question: who said what, without case, spacing and system message."""
    return tuple(
        Message(message.role, " ".join(message.content.casefold().split()))
        for message in prompt
        if message.role != "system"
    )
