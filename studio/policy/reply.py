"""Between the engine and a reader: tokens of one row become text of one stream, and the reply finds its end.

It knows which tokens end a turn and how many may come; it knows no batch, no model and no version.
"""

from __future__ import annotations

from memory.schema import Finish
from studio.policy.stream import ReplyStream
from studio.policy.text import ReplyText


class ReplySink:
    """The sink of one row: tokens to text to the stream, and the end of the reply."""

    def __init__(
        self, stream: ReplyStream, text: ReplyText, *, ends: frozenset[int], most_tokens: int
    ) -> None:
        self._stream = stream
        self._text = text
        self._ends = ends
        self._most_tokens = most_tokens
        self._finish: Finish = "cancelled"

    @property
    def cancelled(self) -> bool:
        return self._stream.cancelled

    def take(self, token: int) -> bool:
        if token in self._ends:
            self._stream.push(self._text.flush())
            self._finish = "stop"
            return True
        self._stream.push(self._text.push(token))
        if self._text.stopped:
            self._finish = "stop"
        elif self._stream.completion_tokens >= self._most_tokens:
            self._stream.push(self._text.flush(), tokens=0)
            self._finish = "length"
        return self._finish != "cancelled"

    def move_up(self, waiting: int) -> None:
        self._stream.move_up(waiting)

    def end(self, *, error: str | None = None, finish: Finish | None = None) -> None:
        """End the reply, with what has been found so far; `finish` is what an engine says that ended it by itself."""
        if self._finish == "cancelled":
            self._stream.push(self._text.flush(), tokens=0)
            self._finish = finish or self._finish
        self._stream.end("error" if error is not None else self._finish, error)
