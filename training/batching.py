"""The order in which pairs are trained on: shuffled anew in every pass, with pairs of like length side by
side.

A batch is padded to its longest line, so a random batch of short and long pairs computes mostly padding. It
knows lengths and a seed, nothing of what is in the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_JITTER = 0.25


class LikeLengths(Sampler[int]):
    """Row numbers, each once a pass, so that consecutive `batch_size` rows are of like length.

    Every pass jitters the lengths before it sorts, so batches are made up anew, and shuffles the batches. A
    batch that is not full comes last.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._lengths = torch.tensor(list(lengths), dtype=torch.float64)
        self._batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        noise = torch.rand(len(self), generator=self._generator, dtype=torch.float64)
        order = torch.argsort(self._lengths * (1 + _JITTER * noise))
        full = len(self) // self._batch_size
        # The rows that fill no batch are drawn, not the longest ones every time.
        spare = torch.randperm(len(self), generator=self._generator)[full * self._batch_size :]
        left_out = torch.zeros(len(self), dtype=torch.bool)
        left_out[spare] = True
        batches = order[~left_out[order]].reshape(full, self._batch_size)
        shuffled = batches[torch.randperm(full, generator=self._generator)].flatten()
        yield from [*shuffled.tolist(), *spare.tolist()]
