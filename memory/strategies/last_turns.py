"""The last k turns, and fewer where they do not fit. It knows nothing of what came before them."""

from __future__ import annotations

from memory.strategies.preparing import Prepared, Request, prepare


class LastTurns:
    """At most `turns` turns: what the person said and the replies to it, the last message included."""

    def __init__(self, turns: int) -> None:
        if turns < 1:
            raise ValueError(f"The number of turns is {turns}; expected 1 or more.")
        self._turns = turns

    @property
    def name(self) -> str:
        """``last_turns:`` and their number."""
        return f"last_turns:{self._turns}"

    def prepare(self, request: Request) -> Prepared:
        """The newest turns, as many as are wanted and fit."""
        return prepare(request, most_turns=self._turns)
