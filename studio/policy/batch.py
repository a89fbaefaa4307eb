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
    """One reply under way. `adapter` names LoRA weights of the forward pass, None the base; `owner` whom to be fair
    to, None the row itself."""

    prompt: Sequence[int]
    adapter: str | None
    drawing: Drawing
    most_tokens: int
    sink: Sink
    owner: str | None = None
    last_token: int = -1
    number: int = 0
    """Rises with every row that was put in line."""
    turn: int = 0
    """Set by the line: the lowest runs first."""
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
    """`rows` with left-padded prompts of which none has been read yet. `starts` are columns of the cache.

    Rows with the same prompt under the same adapter, the two sides of a blind pair, are twins: the prompt is read for
    the first of them, and when it has been read the others get a copy of its part of the cache.
    """

    def __init__(
        self, rows: Sequence[Row], *, layer_count: int, device: torch.device, most_slots: int | None = None
    ) -> None:
        self.rows: list[Row] = []
        self._twins: dict[Row, list[Row]] = {}
        for row in rows:
            if not self.adopt(row):
                self.rows.append(row)
        width = max(len(row.prompt) for row in rows)
        self.starts = [width - len(row.prompt) for row in self.rows]
        self.cache = KeyValues(layer_count, rows=len(self.rows), most_slots=most_slots)
        self._device = device
        self._width = width

    @property
    def everyone(self) -> list[Row]:
        """The rows and their twins. Other threads count them, so the dictionary is copied before it is walked."""
        return [*self.rows, *(twin for twins in list(self._twins.values()) for twin in twins)]

    def adopt(self, row: Row) -> bool:
        """Take `row` in if the same prompt is being read for another one already; say whether it is."""
        for reader in self.rows:
            if reader.adapter == row.adapter and reader.prompt == row.prompt:
                self._twins.setdefault(reader, []).append(row)
                return True
        return False

    def read(self, forward: Forward, *, columns: int) -> torch.Tensor | None:
        """Read up to `columns` more columns of the prompts; return the logits once all are read, else None."""
        begin = self.cache.end
        end = min(self._width, begin + max(1, columns))
        ids = [
            [row.prompt[column - start] if column >= start else 0 for column in range(begin, end)]
            for row, start in zip(self.rows, self.starts, strict=True)
        ]
        logits = self._pass(forward, ids)
        return self._part_twins(logits) if end == self._width else None

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
            if self._leave_twins(row):
                continue
            index = self.rows.index(row)
            self.cache.remove(index)
            self.rows[index], self.starts[index] = self.rows[-1], self.starts[-1]
            self.rows.pop()
            self.starts.pop()
        if self.starts:
            self.cache.drop_columns(min(self.cache.end, min(self.starts)))

    def _part_twins(self, logits: torch.Tensor) -> torch.Tensor:
        """Give every twin a row of its own; return the logits of all rows."""
        if not self._twins:
            return logits
        sources = [self.rows.index(reader) for reader, twins in self._twins.items() for _ in twins]
        logits = logits[[*range(len(self.rows)), *sources]]
        self.cache.repeat(sources)
        self.starts += [self.starts[source] for source in sources]
        self.rows, self._twins = self.everyone, {}
        return logits

    def _leave_twins(self, row: Row) -> bool:
        """Take out a row that has twins, so that nothing but its name changes; False when it has none."""
        for reader, twins in self._twins.items():
            if row is not reader and row not in twins:
                continue
            left = [other for other in (reader, *twins) if other is not row]
            self.rows[self.rows.index(reader)] = left[0]
            del self._twins[reader]
            if left[1:]:
                self._twins[left[0]] = left[1:]
            return True
        return False

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
