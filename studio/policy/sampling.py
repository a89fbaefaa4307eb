"""The next token of each row from its logits: every row by its own temperature, nucleus and random numbers.

A row's choice depends on its own logits and its own generator, and takes exactly one random number a token, so
neighbours that come and go do not change it. This module knows no model and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_USUAL_NUCLEUS = 256
"""Most tokens that a nucleus usually holds; finding so many is much cheaper than sorting a large vocabulary."""

INVALID = -1
"""Stands for the token of a row whose logits are not numbers."""


@dataclass(frozen=True)
class Drawing:
    """How one row draws. The generator lives on the CPU, so that a seed means the same on every device."""

    temperature: float
    top_p: float
    generator: torch.Generator

    @classmethod
    def seeded(cls, temperature: float, top_p: float, *, seed: int) -> Drawing:
        """A drawing whose random numbers are a function of `seed`."""
        return cls(temperature, top_p, torch.Generator().manual_seed(seed % 2**63))


def choose(logits: torch.Tensor, drawings: Sequence[Drawing]) -> list[int]:
    """One token id per row of `logits` (rows, vocabulary); `INVALID` where a row holds NaN or infinity on top.

    Temperature comes first, then the nucleus of what it left (Holtzman et al. 2020): the smallest set of most likely
    tokens with a probability of at least `top_p` together.
    """
    best = logits.max(dim=-1)
    tokens: list[int] = torch.where(best.values.isfinite(), best.indices, INVALID).tolist()
    drawn = [
        row for row, drawing in enumerate(drawings) if drawing.temperature > 0 and tokens[row] != INVALID
    ]
    if not drawn:
        return tokens
    temperatures = torch.tensor([[drawings[row].temperature] for row in drawn], device=logits.device)
    probabilities = torch.softmax(logits[drawn].float() / temperatures, dim=-1)
    uniform = [torch.rand((), generator=drawings[row].generator, dtype=torch.float64).item() for row in drawn]
    chosen = _pick(probabilities, [drawings[row].top_p for row in drawn], uniform)
    for row, token in zip(drawn, chosen, strict=True):
        tokens[row] = token
    return tokens


def _pick(probabilities: torch.Tensor, top_p: list[float], uniform: list[float]) -> list[int]:
    """Invert each row's cumulative distribution at its uniform number. Rows whose nucleus is wide are sorted whole;
    which rows those are depends on the row alone."""
    usual = probabilities.topk(min(_USUAL_NUCLEUS, probabilities.shape[-1]), dim=-1)
    covered = usual.values.sum(-1).tolist()
    picked = [0] * len(top_p)
    narrow = [row for row in range(len(top_p)) if covered[row] >= top_p[row]]
    wide = [row for row in range(len(top_p)) if covered[row] < top_p[row]]
    for rows, values, indices in (
        (narrow, usual.values[narrow], usual.indices[narrow]),
        (wide, *probabilities[wide].sort(dim=-1, descending=True)),
    ):
        if not rows:
            continue
        limits = torch.tensor([[top_p[row]] for row in rows], device=values.device, dtype=torch.float64)
        draws = torch.tensor([[uniform[row]] for row in rows], device=values.device, dtype=torch.float64)
        cumulative = values.double().cumsum(-1)
        inside = (cumulative - values) < limits
        inside[:, 0] = True
        total = torch.where(inside, values.double(), 0).sum(-1, keepdim=True)
        positions = torch.searchsorted(cumulative, draws * total, right=True)
        positions = torch.minimum(positions, inside.sum(-1, keepdim=True) - 1)
        for row, token in zip(rows, indices.gather(-1, positions)[:, 0].tolist(), strict=True):
            picked[row] = token
    return picked
