"""Rows for training: several dialogues to a row, none seeing another, with a weight for every token's loss.

Knows tokens and rows; knows nothing of where dialogues come from or of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ASSISTANT_WEIGHT, OTHER_WEIGHT = 1.0, 0.1


@dataclass(frozen=True)
class Batch:
    """Rows of equal length. All tensors are [rows, length]; `attention` is [rows, 1, length, length]."""

    input_ids: Tensor
    positions: Tensor
    """Position within the dialogue, starting at 0 for each."""
    attention: Tensor
    """Whether a query (dim 2) may see a key (dim 3): earlier, and in the same dialogue."""
    weights: Tensor
    """Weight of predicting this token; 0 for padding and for the first token of a dialogue."""


Encoded = tuple[list[int], list[bool]]


def pack(dialogues: Iterable[Encoded], length: int) -> list[list[Encoded]]:
    """Put dialogues into rows of at most `length` tokens, longest first into the fullest row that fits.

    Dialogues longer than a row are left out.
    """
    rows: list[list[Encoded]] = []
    room: dict[int, list[int]] = {}
    for dialogue in sorted(dialogues, key=lambda d: len(d[0]), reverse=True):
        size = len(dialogue[0])
        if size > length:
            continue
        fit = next((space for space in range(size, length + 1) if room.get(space)), None)
        if fit is None:
            rows.append([])
            place, fit = len(rows) - 1, length
        else:
            place = room[fit].pop()
        rows[place].append(dialogue)
        room.setdefault(fit - size, []).append(place)
    return rows


def collate(rows: Sequence[Sequence[Encoded]], length: int, pad: int) -> Batch:
    """Tensors of packed rows, padded at the end with `pad`."""
    input_ids = torch.full((len(rows), length), pad, dtype=torch.long)
    positions = torch.zeros((len(rows), length), dtype=torch.long)
    segments = torch.full((len(rows), length), -1, dtype=torch.long)
    weights = torch.zeros((len(rows), length))
    for row, dialogues in enumerate(rows):
        start = 0
        for number, (ids, generated) in enumerate(dialogues):
            stop = start + len(ids)
            input_ids[row, start:stop] = torch.tensor(ids)
            positions[row, start:stop] = torch.arange(len(ids))
            segments[row, start:stop] = number
            weights[row, start:stop] = torch.where(torch.tensor(generated), ASSISTANT_WEIGHT, OTHER_WEIGHT)
            weights[row, start] = 0.0
            start = stop
    same = segments[:, :, None] == segments[:, None, :]
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    return Batch(input_ids, positions, (same & earlier)[:, None], weights)
