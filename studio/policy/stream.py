"""One reply as the rest of the studio sees it: text that grows, a place in line, and an end.

Written by one engine thread, read by any number of others, threads or event loops. It knows nothing about models,
tokens' meaning or who is reading.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator

from memory.schema import Finish
from studio.policy.interface import ServedVersion, Stream

logger = logging.getLogger(__name__)


class ReplyStream:
    """The `Stream` that both policies hand out. What the protocol names is for readers, the rest for its engine."""

    def __init__(self, served: ServedVersion, *, prompt_tokens: int, on_cancel: Callable[[], None]) -> None:
        self._served = served
        self._prompt_tokens = prompt_tokens
        self._on_cancel = on_cancel
        self._changed = threading.Condition()
        self._text = ""
        self._completion_tokens = 0
        self._waiting = 1
        self._finish: Finish | None = None
        self._error: str | None = None
        self._cancelled = False
        self._callbacks: list[Callable[[Stream], None]] = []
        self._listeners: list[Callable[[], None]] = []

    @property
    def text(self) -> str:
        return self._text

    @property
    def done(self) -> bool:
        return self._finish is not None

    @property
    def finish(self) -> Finish | None:
        return self._finish

    @property
    def error(self) -> str | None:
        return self._error

    @property
    def waiting(self) -> int:
        return self._waiting

    @property
    def served(self) -> ServedVersion:
        return self._served

    @property
    def prompt_tokens(self) -> int:
        return self._prompt_tokens

    @property
    def completion_tokens(self) -> int:
        return self._completion_tokens

    @property
    def cancelled(self) -> bool:
        """Whether an end has been asked for; the engine looks at this between two tokens."""
        return self._cancelled

    def cancel(self) -> None:
        with self._changed:
            if self._cancelled or self.done:
                return
            self._cancelled = True
        self._on_cancel()

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.done, timeout)

    def add_done_callback(self, callback: Callable[[Stream], None]) -> None:
        with self._changed:
            if not self.done:
                self._callbacks.append(callback)
                return
        self._call(callback)

    def __iter__(self) -> Iterator[str]:
        sent = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda sent=sent: self.done or len(self._text) > sent)  # type: ignore[misc]
                text, done = self._text, self.done
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)
            elif done:
                return

    async def pieces(self) -> AsyncIterator[str]:
        """The same as iterating, without blocking the event loop or holding a thread."""
        loop, changed, sent = asyncio.get_running_loop(), asyncio.Event(), 0

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._changed:
            self._listeners.append(wake)
        try:
            while True:
                changed.clear()
                done, text = self.done, self._text
                if len(text) > sent:
                    yield text[sent:]
                    sent = len(text)
                elif done:
                    return
                else:
                    await changed.wait()
        finally:
            with self._changed:
                self._listeners.remove(wake)

    def move_up(self, waiting: int) -> None:
        """Set the place in line; 0 means that the reply runs."""
        self._waiting = waiting

    def push(self, text: str, *, tokens: int = 1) -> None:
        """Append `text` (it may be empty) and count the tokens that it took."""
        with self._changed:
            self._completion_tokens += tokens
            if text:
                self._text += text
                self._wake()

    def end(self, finish: Finish, error: str | None = None) -> None:
        """End the reply. A second call changes nothing."""
        with self._changed:
            if self.done:
                return
            self._error, self._waiting = error, 0
            self._finish = finish
            callbacks, self._callbacks = self._callbacks, []
            self._wake()
        for callback in callbacks:
            self._call(callback)

    def _wake(self) -> None:
        self._changed.notify_all()
        for listener in self._listeners:
            try:
                listener()
            except RuntimeError:  # the reader's event loop has been closed; nobody is left to wake
                logger.debug("A reader of a reply went away before its end.")

    def _call(self, callback: Callable[[Stream], None]) -> None:
        try:
            callback(self)
        except Exception:  # the engine's thread must outlive whatever a reader does in its callback
            logger.exception("A callback failed at the end of a reply.")
