"""What single runs of tokens in a reply are worth, beside what a base sees in it: the wide half of a reward model.

A small base that was trained on other texts has no use for many of the words that people judge by, and a linear model
over word n-grams then orders replies better than it. Fitted together, each learns what the other cannot ("wide and
deep": Cheng et al. 2016). Runs of 1 to n tokens are hashed into a fixed table, so that no vocabulary has to be built or
kept. It reads token ids of a reply alone: no prompt, no text, no model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BUCKETS = 1 << 17
_PRIME, _START = 1_000_003, 0
_MASK = (1 << 64) - 1


class Phrases(nn.Module):
    """The worth of every run of at most `longest` tokens, by its hash; nothing is worth anything at first."""

    def __init__(self, longest: int, *, device: torch.device) -> None:
        super().__init__()
        self.longest = longest
        self.worth = nn.Parameter(torch.zeros(BUCKETS, device=device))

    def forward(self, replies: list[tuple[int, ...]]) -> Tensor:
        """What the different runs in each reply are worth together, over the root of their number: [replies].

        So a long reply is not better or worse for being long, and nothing is won by saying the same again.
        """
        runs = [runs_of(reply, self.longest) for reply in replies]
        counts = torch.tensor([len(found) for found in runs], device=self.worth.device)
        flat = torch.tensor([run for found in runs for run in found], device=self.worth.device)
        rows = torch.repeat_interleave(torch.arange(len(runs), device=self.worth.device), counts)
        sums = torch.zeros(len(runs), device=self.worth.device).index_add(0, rows, self.worth[flat])
        return sums / counts.sqrt()


def runs_of(reply: tuple[int, ...], longest: int) -> list[int]:
    """The buckets of the different runs of 1 to `longest` neighbours in `reply`, the beginning marked, in order."""
    ids = (_START, *(token + 1 for token in reply))
    found: set[int] = set()
    for first in range(len(ids)):
        hashed = 0
        for token in ids[first : first + longest]:
            hashed = (hashed * _PRIME + token + 1) & _MASK
            found.add((hashed ^ (hashed >> 29)) % BUCKETS)
    return sorted(found)
