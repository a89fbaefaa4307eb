"""What a reward model should see through: damaged copies of preferred replies, and prompts unlike any that it saw.

Four damages, made of token ids, so that they fit any model and any language. Whoever optimizes a policy against a
reward model that prefers the damaged copy will get that damage. And a figure for how strange a prompt is. Pure; it
scores nothing and knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

Ids = tuple[int, ...]
DAMAGES = ("shuffled", "cut", "doubled", "off_topic")
"""Its tokens in another order; its first half only; said twice; the preferred reply to another prompt."""
_LEAST_TOKENS = 4


@dataclass(frozen=True)
class Damaged:
    """A preferred reply to `prompt` and a copy that is worse by `damage`."""

    prompt: Ids
    reply: Ids
    copy: Ids
    damage: str


def damaged_copies(
    prompts: Sequence[Ids], replies: Sequence[Ids], *, ends: Collection[int], rng: random.Random
) -> list[Damaged]:
    """All damages to each of `replies` (preferred ones, to `prompts`) that is long enough for them.

    An end of turn stays in its place. `off_topic` takes the reply to the next prompt that is another.
    """
    found: list[Damaged] = []
    for number, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        said, end = _parted(reply, ends)
        if len(said) < _LEAST_TOKENS:
            continue
        shuffled = tuple(rng.sample(said, len(said)))
        copies = {
            "shuffled": (*shuffled, *end),
            "cut": (*said[: len(said) // 2], *end),
            "doubled": (*said, *said, *end),
            "off_topic": _elsewhere(number, prompts, replies),
        }
        found += [Damaged(prompt, reply, copies[damage], damage) for damage in DAMAGES]
    return [item for item in found if item.copy and item.copy != item.reply]


def strangeness(prompts: Sequence[Ids], known: Sequence[Ids]) -> list[float]:
    """The share of each prompt's pairs of neighbouring tokens that no prompt in `known` has."""
    seen = {pair for prompt in known for pair in pairwise(prompt)}
    shares: list[float] = []
    for prompt in prompts:
        pairs = list(pairwise(prompt))
        shares.append(sum(pair not in seen for pair in pairs) / max(len(pairs), 1))
    return shares


def _parted(reply: Ids, ends: Collection[int]) -> tuple[Ids, Ids]:
    """What is said, and the end of the turn."""
    length = len(reply)
    while length and reply[length - 1] in ends:
        length -= 1
    return reply[:length], reply[length:]


def _elsewhere(number: int, prompts: Sequence[Ids], replies: Sequence[Ids]) -> Ids:
    """The reply to the next prompt that differs from this one's; empty where there is none."""
    for step in range(1, len(prompts)):
        other = (number + step) % len(prompts)
        if prompts[other] != prompts[number]:
            return replies[other]
    return ()
