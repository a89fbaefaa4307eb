"""Rows as token ids: the one way in which pairs and rated replies enter training, evaluation and the judge.

What people wrote is text and never becomes a control token here either: the chat template is laid around it
by `training.prompt`, exactly as when the reply was sampled. This module knows no ledger, no trainer and no
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.prompt import encode_prompt, encode_reply, end_of_turn_ids
from training.views import PreferenceRow, RatedRow


@dataclass(frozen=True)
class EncodedPair:
    """One pair as token ids; `chosen` and `rejected` end with the end of the turn if the reply ended."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer reply."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True)
class EncodedReply:
    """One reply as token ids, and whether it was `liked`; `reply` ends with the end of the turn if it ended."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    liked: bool

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its reply."""
        return len(self.prompt) + len(self.reply)


def encode_pairs(
    tokenizer: Any, rows: Sequence[PreferenceRow], *, context_tokens: int
) -> tuple[list[PreferenceRow], list[EncodedPair]]:
    """The rows that fit into `context_tokens`, and their ids. The others are left out, not cut: half a reply
    is another.
    """
    encoded = [(row, _encode(tokenizer, row)) for row in rows]
    fitting = [(row, pair) for row, pair in encoded if pair.longest <= context_tokens]
    return [row for row, _ in fitting], [pair for _, pair in fitting]


def encode_replies(
    tokenizer: Any, rows: Sequence[RatedRow], *, context_tokens: int
) -> tuple[list[RatedRow], list[EncodedReply]]:
    """The rated replies that fit into `context_tokens`, and their ids, like `encode_pairs`."""
    encoded = [
        (
            row,
            EncodedReply(
                tuple(encode_prompt(tokenizer, row.prompt)),
                encode_completion(tokenizer, row.completion, finished=row.finished),
                row.liked,
            ),
        )
        for row in rows
    ]
    fitting = [(row, reply) for row, reply in encoded if reply.longest <= context_tokens]
    return [row for row, _ in fitting], [reply for _, reply in fitting]


def encode_completion(tokenizer: Any, text: str, *, finished: bool = True) -> tuple[int, ...]:
    """A reply's ids; a reply that did not finish carries no end of turn."""
    ids = encode_reply(tokenizer, text)
    if not finished:
        ends = end_of_turn_ids(tokenizer)
        while ids and ids[-1] in ends:
            ids = ids[:-1]
    return tuple(ids)


def _encode(tokenizer: Any, row: PreferenceRow) -> EncodedPair:
    return EncodedPair(
        prompt=tuple(encode_prompt(tokenizer, row.prompt)),
        chosen=encode_completion(tokenizer, row.chosen, finished=row.chosen_finished),
        rejected=encode_completion(tokenizer, row.rejected, finished=row.rejected_finished),
    )
