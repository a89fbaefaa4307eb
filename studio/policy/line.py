"""Who runs next: the rows in line, in an order in which nobody's many requests push another's one aside.

Start-time fair queueing (Goyal, Vin and Cheng 1996) with every row of the same weight. A row's turn is one after its
owner's last one, but not before the turn that is being served; the lowest turn runs first, and among equals the earlier
arrival. So a newcomer comes right after what is being served, however many rows somebody else has put in line. A row
without an owner stands for itself, which leaves plain arrival order where no owners are given. This module knows no
model; its caller holds the lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from studio.policy.interface import Busy


class InLine(Protocol):
    """What stands in line. `number` rises with arrival, `turn` is the line's own."""

    owner: str | None
    number: int
    turn: int


Row = TypeVar("Row", bound=InLine)


class Line(Generic[Row]):
    """Rows that wait, first to run first. `limit` is how many may, beside those for which a place at work is free."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: list[Row] = []
        self._turn = 0
        self._next_turns: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def join(self, row: Row, *, free: int) -> None:
        """Put `row` in line while `free` places at work are free. Raises `Busy`.

        An owner may fill the line to where his rows are as many as the places left, so half of it when alone: there is
        always room for somebody else.
        """
        left = self._limit + free - len(self._rows)
        if left <= 0:
            raise Busy(
                f"{len(self._rows)} replies are waiting already, which is the limit. Try again in a moment."
            )
        own = sum(other.owner == row.owner for other in self._rows) if row.owner is not None else 0
        if own - free >= left:
            raise Busy(
                f"{own} of your replies are waiting already, and the places left are for others. "
                "Try again when some have ended."
            )
        row.turn = self._turn
        if row.owner is not None:
            row.turn = max(self._turn, self._next_turns.get(row.owner, 0))
            self._next_turns[row.owner] = row.turn + 1
        self.put_back([row])

    def put_back(self, rows: Iterable[Row]) -> None:
        """Take rows in again that had left; they keep their turn."""
        self._rows = sorted([*self._rows, *rows], key=lambda row: (row.turn, row.number))

    def serve(self) -> Row:
        """Take out the first row, because it runs now."""
        row = self._rows.pop(0)
        if row.turn > self._turn:
            self._turn = row.turn
            # Turns that have been reached say nothing any more.
            self._next_turns = {owner: turn for owner, turn in self._next_turns.items() if turn > self._turn}
        return row

    def leave(self, row: Row) -> None:
        """Take `row` out, because it was cancelled."""
        self._rows.remove(row)

    def clear(self) -> list[Row]:
        """Take everybody out."""
        rows, self._rows = self._rows, []
        return rows
