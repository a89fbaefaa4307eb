"""The order in which rows are trained on: shuffled anew in every pass, with rows of like length side by side.

A batch is padded to its longest line, so a random batch of short and long rows computes mostly padding. It knows
lengths and a seed, nothing of what is in the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_JITTER = 0.25


def passes_of(lengths: Sequence[int], *, most: int, fixed: int) -> list[list[int]]:
    """Row numbers in passes of at most `most` rows of like length, so that a step costs least: all tokens of all passes
    with their padding, and `fixed` more for each pass. Any order of rows within a step gives the same gradient.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    cost, start = [0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        starts = range(max(0, end - most), end)
        best = min(starts, key=lambda begin: cost[begin] + (end - begin) * longest)
        cost.append(cost[best] + (end - best) * longest + fixed)
        start.append(best)
    passes: list[list[int]] = []
    end = len(order)
    while end:
        passes.append(order[start[end] : end])
        end = start[end]
    return passes


class LikeLengths(Sampler[int]):
    """Row numbers, each once a pass, so that consecutive `batch_size` rows are of like length.

    Every pass jitters the lengths before it sorts, so batches are made up anew, and shuffles the batches. A
    batch that is not full comes last. The order of a pass follows from the seed and its number alone, so a training
    that is resumed in the middle of one sees the rows that it would have seen.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._lengths = torch.tensor(list(lengths), dtype=torch.float64)
        self._batch_size, self._seed = batch_size, seed
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn = 0

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be number `epoch`, counted from 0 (transformers and accelerate call this)."""
        if epoch < self._drawn:
            self._generator.manual_seed(self._seed)
            self._drawn = 0
        while self._drawn < epoch:
            self._draw()

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        yield from self._draw()

    def _draw(self) -> list[int]:
        """The rows of the next pass, all drawn at once."""
        self._drawn += 1
        noise = torch.rand(len(self), generator=self._generator, dtype=torch.float64)
        order = torch.argsort(self._lengths * (1 + _JITTER * noise))
        full = len(self) // self._batch_size
        # The rows that fill no batch are drawn, not the longest ones every time.
        spare = torch.randperm(len(self), generator=self._generator)[full * self._batch_size :]
        left_out = torch.zeros(len(self), dtype=torch.bool)
        left_out[spare] = True
        batches = order[~left_out[order]].reshape(full, self._batch_size)
        shuffled = batches[torch.randperm(full, generator=self._generator)].flatten()
        return [*shuffled.tolist(), *spare.tolist()]


class WholeBatches(Sampler[int]):
    """Row numbers, each once a pass, for rows that stand in batches already: the batches in a new order, each whole.

    `rows` must be a multiple of `batch_size`. The order of a pass follows from the seed and its number alone.
    """

    def __init__(self, rows: int, *, batch_size: int, seed: int) -> None:
        if rows % batch_size:
            raise ValueError(f"There are {rows} rows; expected a multiple of the batch size {batch_size}.")
        self._rows, self._batch_size, self._seed, self._epoch = rows, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be number `epoch`, counted from 0 (transformers and accelerate call this)."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        self._epoch += 1
        for batch in torch.randperm(self._rows // self._batch_size, generator=generator).tolist():
            yield from range(batch * self._batch_size, (batch + 1) * self._batch_size)
