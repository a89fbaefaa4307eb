"""Writing finished replies down, whoever is still watching.

Engines call back when a stream ends; the callback only queues the exchange, and one writer thread lets
`studio.settling` decide what that means and makes the writes.

A write that fails for want of storage stays first in the exchange's line and is tried again until it
succeeds, in order; meanwhile the reply's text stays in the exchange, which says so. This module decides
nothing about replies.
"""

from __future__ import annotations

import logging
import queue
import threading
import time

from memory.database import StorageError
from studio.exchange import Exchange, Vote
from studio.settling import Settling

logger = logging.getLogger(__name__)


class Recorder:
    """Makes the writes of exchanges, on a thread of its own and, for votes, on the voter's."""

    def __init__(self, settling: Settling, *, retry_seconds: float = 2.0) -> None:
        self._settling = settling
        self._retry_seconds = retry_seconds
        self._queue: queue.SimpleQueue[Exchange | None] = queue.SimpleQueue()
        self._deferred: set[Exchange] = set()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def submit(self, exchange: Exchange) -> None:
        """Ask the writer thread to look at `exchange`: a side has ended. Returns at once, from any thread."""
        self._queue.put(exchange)

    def cast(self, exchange: Exchange, vote: Vote) -> bool:
        """Write `vote` down as far as the replies have come; False when storage refuses (it is tried
        again).
        """
        self._settling.cast(exchange, vote)
        return self._flush_or_queue(exchange)

    def skip(self, exchange: Exchange, *, actor: str) -> bool:
        """Write down that nobody judged; False when that has to wait for storage."""
        self._settling.skip(exchange, actor=actor)
        return self._flush_or_queue(exchange)

    def note(self, exchange: Exchange, kind: str, target: str, *, actor: str) -> None:
        """Write down, soon, that something happened in `exchange`."""
        self._settling.note(exchange, kind, target, actor=actor)
        self.submit(exchange)

    def flush(self, exchange: Exchange) -> bool:
        """Make the exchange's outstanding writes, in order; False when storage refused one (it will be
        tried again).
        """
        with exchange.write_lock:
            while True:
                with exchange.changed:
                    if not exchange.writes:
                        exchange.unsaved = ""
                        exchange.changed.notify_all()
                        return True
                    write = exchange.writes[0]
                try:
                    write()
                except StorageError as error:
                    logger.warning("Exchange %s is not saved yet: %s", exchange.id, error)
                    with exchange.changed:
                        exchange.unsaved = f"This is not saved yet and will be tried again: {error}"
                        exchange.changed.notify_all()
                    return False
                with exchange.lock:
                    exchange.writes.popleft()

    def close(self) -> None:
        """Write what is queued, try what was postponed once more, and end the thread."""
        self._queue.put(None)
        self._thread.join()
        for exchange in [exchange for exchange in self._deferred if not self.flush(exchange)]:
            logger.error(
                "Exchange %s of conversation %s could not be saved: %s",
                exchange.id,
                exchange.conversation_id,
                exchange.unsaved,
            )

    def _run(self) -> None:
        retry_at: float | None = None
        while True:
            wait = None if retry_at is None else max(0.0, retry_at - time.monotonic())
            try:
                exchange = self._queue.get(timeout=wait)
                if exchange is None:
                    return
                self._record(exchange)
            except queue.Empty:
                pass
            if retry_at is not None and time.monotonic() >= retry_at:
                postponed, self._deferred, retry_at = self._deferred, set(), None
                for waiting in postponed:
                    self._record(waiting)
            if self._deferred and retry_at is None:
                retry_at = time.monotonic() + self._retry_seconds

    def _record(self, exchange: Exchange) -> None:
        try:
            self._settling.settle(exchange)
            if not self.flush(exchange):
                self._deferred.add(exchange)
        except Exception:
            logger.exception("Exchange %s could not be written down", exchange.id)
            with exchange.write_lock, exchange.changed:
                exchange.writes.clear()
                exchange.settled = True
                exchange.error = True
                exchange.notice = (
                    "This reply could not be written into the conversation; the studio's log says why. "
                    "Copy what you need and reload the page."
                )
                exchange.changed.notify_all()

    def _flush_or_queue(self, exchange: Exchange) -> bool:
        written = self.flush(exchange)
        if not written:
            self.submit(exchange)
        return written
