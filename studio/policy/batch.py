"""Rows that share forward passes: their prompts are read in slices, then each pass gives every row one more token.

A batch knows rows' token ids, where they stand in the cache and under which adapter they run. It knows no text, no
queue, no sampling and no PEFT: the forward pass is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from studio.policy.cache import KeyValues
from studio.policy.sampling import Drawing


class Sink(Protocol):
    """Where a row's tokens go. Called on the engine's thread only."""

    @property
    def cancelled(self) -> bool:
        """Whether the row should end; looked at between two tokens."""

    def take(self, token: int) -> bool:
        """Receive the next token; return whether the reply is complete with it."""

    def move_up(self, waiting: int) -> None:
        """Receive the place in line; 0 when the row runs."""

    def end(self, *, error: str | None = None) -> None:
        """The row is over: complete, cancelled, or failed with `error`."""


@dataclass(eq=False)
class Row:
    """One reply under way. `adapter` names LoRA weights of the forward pass, None the base."""

    prompt: Sequence[int]
    adapter: str | None
    drawing: Drawing
    most_tokens: int
    sink: Sink
    last_token: int = -1
    number: int = 0
    """Rises with every row that was put in line."""
    alone: bool = False
    """Read this prompt apart from others: a pass that held it failed before."""


class Forward(Protocol):
    """One pass of the model under one adapter per row."""

    def __call__(
        self,
        ids: torch.Tensor,
        *,
        adapters: Sequence[str | None],
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        cache: KeyValues,
    ) -> torch.Tensor:
        """Logits of the last column, shape (rows, vocabulary), for `ids` of shape (rows, columns).

        `mask` (rows, columns in the cache and new ones) is True where a row may look; None where it may everywhere.
        """


class Batch:
    """`rows` with left-padded prompts of which none has been read yet. `starts` are columns of the cache."""

    def __init__(self, rows: Sequence[Row], *, layer_count: int, device: torch.device) -> None:
        self.rows = list(rows)
        width = max(len(row.prompt) for row in rows)
        self.starts = [width - len(row.prompt) for row in rows]
        self.cache = KeyValues(layer_count, rows=len(self.rows))
        self._device = device
        self._width = width

    @property
    def unread(self) -> int:
        """Columns of the prompts that are still to be read."""
        return max(0, self._width - self.cache.end)

    def read(self, forward: Forward, *, columns: int) -> torch.Tensor | None:
        """Read up to `columns` more columns of the prompts; return the logits once all are read, else None."""
        begin = self.cache.end
        end = min(self._width, begin + max(1, columns))
        ids = [
            [row.prompt[column - start] if column >= start else 0 for column in range(begin, end)]
            for row, start in zip(self.rows, self.starts, strict=True)
        ]
        logits = self._pass(forward, ids)
        return logits if end == self._width else None

    def step(self, forward: Forward) -> torch.Tensor:
        """Logits of the token after each row's last one, shape (rows, vocabulary)."""
        return self._pass(forward, [[row.last_token] for row in self.rows])

    def absorb(self, other: Batch) -> None:
        """Take over the rows of `other`, whose prompts have been read."""
        before, width = self.cache.end, other.cache.end
        self.cache.admit(other.cache)
        shift = self.cache.end - before
        self.starts = [start + shift for start in self.starts]
        self.starts += [self.cache.end - width + start for start in other.starts]
        self.rows += other.rows

    def remove(self, rows: Sequence[Row]) -> None:
        """Take rows out; the order of the others may change."""
        for row in rows:
            index = self.rows.index(row)
            self.cache.remove(index)
            self.rows[index], self.starts[index] = self.rows[-1], self.starts[-1]
            self.rows.pop()
            self.starts.pop()
        if self.starts:
            self.cache.drop_columns(min(self.cache.end, min(self.starts)))

    def _pass(self, forward: Forward, ids: list[list[int]]) -> torch.Tensor:
        columns = len(ids[0])
        shift = self.cache.end
        self.cache.make_room(columns)
        shift = self.cache.end - shift
        if shift:
            self.starts = [start + shift for start in self.starts]
        begin, end = self.cache.begin, self.cache.end
        starts = torch.tensor(self.starts, device=self._device)[:, None]
        positions = (torch.arange(end, end + columns, device=self._device)[None] - starts).clamp(min=0)
        mask = None
        if max(self.starts) > begin:
            mask = torch.arange(begin, end + columns, device=self._device)[None] >= starts
        logits = forward(
            torch.tensor(ids, device=self._device),
            adapters=[row.adapter for row in self.rows],
            positions=positions,
            mask=mask,
            cache=self.cache,
        )
        self.cache.advance(columns)
        return logits
