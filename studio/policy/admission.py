"""Who may join the replies under way: as many as the cache holds, and prompts of like length in one slice.

Pure functions of rows and limits; the line, the batches and the model are the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studio.policy.batch import Row


@dataclass(frozen=True)
class Limits:
    """How much the engine takes on.

    `rows` replies at once, `waiting` in line behind them; `slots` row-columns of the cache at most, where a row counts
    as long as the longest; `prefill_tokens` of prompts in one turn while replies are streaming (four times as many
    while none is).
    """

    rows: int = 16
    waiting: int = 64
    slots: int = 16 * 4096
    prefill_tokens: int = 256


def holds(rows: Sequence[Row], limits: Limits) -> bool:
    """Whether the cache is large enough for `rows` at once, each as long as the longest may get.

    A row that has everything for itself is always let in.
    """
    length = max(len(row.prompt) + row.most_tokens for row in rows)
    return len(rows) == 1 or len(rows) * length <= limits.slots


def fits(group: Sequence[Row], row: Row, *, running: Sequence[Row], limits: Limits, columns: int) -> bool:
    """Whether `row` may be read with `group` beside those `running`: enough cache for all, prompts of like length, and
    one slice of at most `columns` tokens over all rows."""
    if not holds([*group, row, *running], limits):
        return False
    if not group:
        return True
    if row.alone or group[0].alone:
        return False
    if any(row.adapter == other.adapter and row.prompt == other.prompt for other in group):
        return True
    lengths = [len(other.prompt) for other in (*group, row)]
    return max(lengths) * len(lengths) <= columns and 2 * min(lengths) >= max(lengths)
