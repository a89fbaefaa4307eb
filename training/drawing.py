"""Drawing the next token: temperature, nucleus, and one uniform number for each token of each reply.

A number that belongs to the token instead of a generator that belongs to the batch makes a reply independent of who is
answered beside it, in which order, and in which process. It knows no model and no reply.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LIKELY = 256


@dataclass(frozen=True)
class Decoding:
    """How to sample: as the chat does. Temperature 0 is greedy. `ends` are the ids that end a turn."""

    temperature: float
    top_p: float
    max_new_tokens: int
    ends: frozenset[int]
    pad: int
    seed: int


def draw(logits: Tensor, decoding: Decoding, chances: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row [rows] from logits [rows, vocabulary], by temperature and nucleus (Holtzman et al.
    2020), and the log-probability [rows] with which it was drawn. `chances` [rows] decides, as uniform numbers.
    """
    if decoding.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, torch.zeros_like(tokens, dtype=logits.dtype)
    tempered = logits / decoding.temperature
    probabilities = tempered.softmax(-1)
    if decoding.top_p >= 1:
        choice = _at(probabilities, chances)
        return choice.squeeze(-1), tempered.log_softmax(-1).gather(-1, choice).squeeze(-1)
    # The nucleus nearly always lies within the likeliest few hundred tokens; sorting all takes several times longer.
    likely, ids = probabilities.topk(min(_LIKELY, probabilities.shape[-1]), dim=-1)
    if bool((likely.sum(-1) < decoding.top_p).any()):
        likely, ids = probabilities.sort(dim=-1, descending=True)
    before = likely.cumsum(-1) - likely
    nucleus = likely.masked_fill(before >= decoding.top_p, 0.0)
    choice = _at(nucleus, chances)
    drawn = nucleus.gather(-1, choice).squeeze(-1) / nucleus.sum(-1)
    return ids.gather(-1, choice).squeeze(-1), drawn.log()


def _at(weights: Tensor, chances: Tensor) -> Tensor:
    """Where each row's cumulative weight [rows, choices] passes `chances` [rows] of the whole: [rows, 1]."""
    reached = weights.cumsum(-1)
    found = torch.searchsorted(reached, chances[:, None] * reached[:, -1:], right=True)
    return found.clamp(max=weights.shape[-1] - 1)
