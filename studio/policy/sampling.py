"""The next token of each row from its logits: every row by its own temperature, nucleus and random numbers.

A row's choice depends on its own logits and its own generator, and takes exactly one random number a token, so
neighbours that come and go do not change it. This module knows no model and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_WIDTHS = (32, 256)
"""How many tokens a nucleus is looked for in, before the whole vocabulary is sorted: 32 suffice nearly always, and
finding them takes a tenth of the time of 256, a fiftieth of a sort."""

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
    valid = logits.amax(dim=-1).isfinite().tolist()  # a NaN anywhere comes out on top
    tokens = [INVALID] * len(drawings)
    greedy = [row for row, drawing in enumerate(drawings) if valid[row] and drawing.temperature == 0]
    drawn = [row for row, drawing in enumerate(drawings) if valid[row] and drawing.temperature > 0]
    if greedy:
        for row, token in zip(greedy, _rows(logits, greedy).argmax(dim=-1).tolist(), strict=True):
            tokens[row] = token
    if not drawn:
        return tokens
    temperatures = torch.tensor([[drawings[row].temperature] for row in drawn], device=logits.device)
    probabilities = torch.softmax(_rows(logits, drawn).float() / temperatures, dim=-1)
    uniform = [torch.rand((), generator=drawings[row].generator, dtype=torch.float64).item() for row in drawn]
    chosen = _pick(probabilities, [drawings[row].top_p for row in drawn], uniform)
    for row, token in zip(drawn, chosen, strict=True):
        tokens[row] = token
    return tokens


def _pick(probabilities: torch.Tensor, top_p: list[float], uniform: list[float]) -> list[int]:
    """Invert each row's cumulative distribution at its uniform number. Rows whose nucleus is wider than the first
    width are looked at again with more; which rows those are depends on the row alone."""
    picked = [0] * len(top_p)
    rows = list(range(len(top_p)))
    vocabulary = probabilities.shape[-1]
    for width in (*_WIDTHS, vocabulary):
        values, indices = _rows(probabilities, rows).topk(min(width, vocabulary), dim=-1)
        cumulative = values.double().cumsum(-1)
        covered = cumulative[:, -1].tolist()
        whole = width >= vocabulary
        found = [n for n, row in enumerate(rows) if whole or covered[n] >= top_p[row]]
        if len(found) < len(rows):
            values, indices, cumulative = values[found], indices[found], cumulative[found]
        here = [rows[n] for n in found]
        if here:
            tokens = _invert(
                values.double(), cumulative, [top_p[row] for row in here], [uniform[row] for row in here]
            )
            for row, token in zip(here, indices.gather(-1, tokens)[:, 0].tolist(), strict=True):
                picked[row] = token
        if len(here) == len(rows):
            break
        rows = [row for n, row in enumerate(rows) if n not in set(found)]
    return picked


def _rows(values: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """These rows of `values`, without a copy when they are all there are."""
    return values if len(rows) == len(values) else values[rows]


def _invert(
    values: torch.Tensor, cumulative: torch.Tensor, top_p: list[float], uniform: list[float]
) -> torch.Tensor:
    """Where each row's random number falls within its nucleus; shape (rows, 1)."""
    limits, draws = torch.tensor([top_p, uniform], device=values.device, dtype=torch.float64)[:, :, None]
    inside = (cumulative - values) < limits
    inside[:, 0] = True
    total = torch.where(inside, values, 0).sum(-1, keepdim=True)
    positions = torch.searchsorted(cumulative, draws * total, right=True)
    return torch.minimum(positions, inside.sum(-1, keepdim=True) - 1)
