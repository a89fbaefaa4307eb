"""Keys and values of a batch whose rows come and go, without copying the whole of it at every token.

All rows end at the same column, so the next token of every row goes into the same place; a row that is shorter begins
later, and what lies left of its beginning is masked. Rows join by copying their own columns, leave by moving the last
row into the gap, and columns that no row uses any more are dropped by moving a border. This module knows tensors and
columns only: no requests, no tokens, no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

_COLUMN_STEP = 128
"""Columns added at a time beyond what is needed at once."""


class KeyValues(Cache):
    """The cache of one batch, for any decoder whose layers all use plain (or windowed) attention.

    Columns ``begin`` to ``end`` are in use. A forward pass writes behind `end`; nothing counts until `advance` is
    called, so a pass that failed halfway may simply be run again. Beyond `most_slots` no room is held in reserve; what
    is needed at once is always provided, and keeping that within bounds is up to who admits rows.
    """

    def __init__(self, layer_count: int, *, rows: int, most_slots: int | None = None) -> None:
        super().__init__(layers=[_Columns(self) for _ in range(layer_count)])
        self.rows = rows
        self.most_slots = most_slots
        self.begin = 0
        self.end = 0
        self.row_room = rows
        self.column_room = 0

    @property
    def columns(self) -> int:
        """Columns in use."""
        return self.end - self.begin

    @property
    def slots(self) -> int:
        """Row-columns of memory held, over all rows; each takes one key and one value per layer."""
        return self.row_room * self.column_room

    def make_room(self, columns: int) -> None:
        """Provide for `columns` more columns: by moving to the front if that frees enough, else by growing."""
        if self.end + columns <= self.column_room:
            return
        needed = self.columns + columns
        room = self.column_room if 2 * needed <= self.column_room else needed + _COLUMN_STEP
        self._move(rows=self.rows, row_room=self.row_room, columns=needed, column_room=room, begin=0)

    def advance(self, columns: int) -> None:
        """Count the columns that a forward pass has written."""
        self.end += columns

    def drop_columns(self, begin: int) -> None:
        """Forget the columns left of `begin`."""
        self.begin = begin

    def admit(self, other: KeyValues) -> None:
        """Append the rows of `other`, its last column aligned with ours.

        If `other` is longer, every column index shifts: read `end` afterwards.
        """
        rows, width = self.rows + other.rows, other.columns
        if rows > self.row_room or width > self.end:
            row_room = self.row_room if rows <= self.row_room else max(rows, 2 * self.row_room)
            begin = max(0, width - self.columns)
            needed = begin + self.columns
            room = max(self.column_room, needed + _COLUMN_STEP)
            self._move(rows=rows, row_room=row_room, columns=needed, column_room=room, begin=begin)
        first = min(self.begin, self.end - width)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.receive(theirs, rows=slice(self.rows, rows), begin=first)
        self.begin, self.rows = first, rows

    def repeat(self, sources: Sequence[int]) -> None:
        """Append a copy of each of these rows."""
        rows = self.rows + len(sources)
        if rows > self.row_room:
            self._move(rows=rows, row_room=rows, columns=self.columns, column_room=self.column_room, begin=0)
        for target, source in enumerate(sources, start=self.rows):
            for layer in self.layers:
                layer.copy_row(source, target)
        self.rows = rows

    def remove(self, row: int) -> None:
        """Take a row out; the last row takes its place."""
        last = self.rows - 1
        if row != last:
            for layer in self.layers:
                layer.copy_row(last, row)
        self.rows = last

    def _move(self, *, rows: int, row_room: int, columns: int, column_room: int, begin: int) -> None:
        """Copy what is in use to new tensors with room for `rows` and `columns`, better for `row_room` and
        `column_room`. All are made before the first is put in place, so that running out of memory changes nothing."""
        if self.most_slots is not None and row_room * column_room > self.most_slots:
            row_room, column_room = rows, max(columns, min(column_room, self.most_slots // rows))
        moved = [layer.moved(row_room, column_room, begin) for layer in self.layers]
        for layer, tensors in zip(self.layers, moved, strict=True):
            layer.place(tensors)
        self.end = begin + self.columns
        self.begin = begin
        self.row_room, self.column_room = row_room, column_room


def slot_bytes(model: Any) -> int:
    """Bytes that one token of one row takes in the cache of `model`, over all layers.

    A token is run to see: heads and widths may differ from layer to layer, and no two configurations name them alike.
    """
    cache = KeyValues(model.config.get_text_config().num_hidden_layers, rows=1)
    cache.make_room(1)
    first = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        model(input_ids=first, position_ids=first, past_key_values=cache, use_cache=True, logits_to_keep=1)
    held = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return sum(tensor.nbytes for tensor in held) // cache.slots


class _Columns(DynamicLayer):
    """One layer's keys and values, each of shape (row room, heads, column room, width)."""

    def __init__(self, owner: KeyValues) -> None:
        super().__init__()
        self.owner = owner

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns behind `end` and return all columns in use with them."""
        own = self.owner
        if self.keys is None:
            self.keys = _empty_like(key_states, own.row_room, own.column_room)
            self.values = _empty_like(value_states, own.row_room, own.column_room)
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        end = own.end + key_states.shape[-2]
        self.keys[: own.rows, :, own.end : end] = key_states
        self.values[: own.rows, :, own.end : end] = value_states
        return self.keys[: own.rows, :, own.begin : end], self.values[: own.rows, :, own.begin : end]

    def get_seq_length(self) -> int:
        return self.owner.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.columns + query_length, 0

    def moved(self, row_room: int, column_room: int, begin: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        if self.keys is None:
            return None
        own = self.owner
        tensors = []
        for source in (self.keys, self.values):
            target = _empty_like(source, row_room, column_room)
            target[: own.rows, :, begin : begin + own.columns] = source[: own.rows, :, own.begin : own.end]
            tensors.append(target)
        return tensors[0], tensors[1]

    def place(self, tensors: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        if tensors is not None:
            self.keys, self.values = tensors

    def receive(self, other: _Columns, *, rows: slice, begin: int) -> None:
        """Take over the rows of `other`. Where a row has no columns of its own, zeros stand, never what was left
        behind there: a masked NaN would still spoil the row."""
        own, theirs = self.owner, other.owner
        for target, source in ((self.keys, other.keys), (self.values, other.values)):
            target[: rows.start, :, begin : own.begin] = 0
            target[rows, :, begin : own.end - theirs.columns] = 0
            target[rows, :, own.end - theirs.columns : own.end] = source[
                : theirs.rows, :, theirs.begin : theirs.end
            ]

    def copy_row(self, source: int, target: int) -> None:
        own = self.owner
        for tensor in (self.keys, self.values):
            tensor[target, :, own.begin : own.end] = tensor[source, :, own.begin : own.end]


def _empty_like(tensor: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Zeros with the same heads, width, type and place: masked columns are multiplied by 0, not skipped."""
    return tensor.new_zeros((rows, tensor.shape[1], columns, tensor.shape[3]))
