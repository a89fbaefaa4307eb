"""Replies on their way to the model servers: out of a fair line, to the server with the fewest of them.

A reply whose server goes away starts again on another one if nothing has been said yet, and else ends with a sentence.
It knows replicas and replies; it knows no adapter's files, no health and no LangChain.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from studio.policy.interface import Busy, PolicyClosed
from studio.policy.line import Line
from studio.policy.replicas import Replica, Replicas
from studio.policy.reply import ReplySink
from studio.policy.stream import ReplyStream
from studio.policy.vllm_server import Drawing, ServerGone, ServerRefused, ServerSilent

logger = logging.getLogger(__name__)

MOST_STARTS = 3
"""A reply that loses its server before its first token is started so many times in all."""
BROKE_OFF = "The model server that was writing this reply went away. Ask again for a whole reply."
NONE_ANSWERS = (
    "No model server answers at the moment; they are tried again all the time. Try again in a minute."
)
SILENT = "The model server said nothing for too long, so this reply was given up. Try again in a moment."
FAILED = "The model server could not write this reply: {error}"
CLOSING = "The studio is shutting down."


@dataclass(eq=False)
class Reply:
    """One reply in line or under way."""

    stream: ReplyStream
    sink: ReplySink
    version: str
    drawing: Drawing
    owner: str | None = None
    number: int = 0
    turn: int = 0
    starts: int = 0
    task: asyncio.Task[None] | None = None


class Dispatch:
    """Replies waiting and running. `rows` is the most per server, `waiting` the most that wait."""

    def __init__(self, *, rows: int, waiting: int) -> None:
        self._rows = rows
        self._lock = threading.Lock()
        self._waiting: Line[Reply] = Line(waiting)
        self._numbers = itertools.count()
        self._closed = False
        self.replicas: Replicas
        """Set once, before the first reply."""

    def join(self, reply: Reply) -> None:
        """Put `reply` at the end, from any thread; `dispatch` is to be called on the loop next. Raises `Busy`."""
        with self._lock:
            if self._closed:
                raise PolicyClosed("The policy is closed and takes no further requests.")
            living = self.replicas.living()
            if not living:
                raise Busy(NONE_ANSWERS)
            free = sum(max(0, self._rows - len(replica.replies)) for replica in living)
            reply.number = next(self._numbers)
            self._waiting.join(reply, free=free)

    def dispatch(self) -> None:
        """Start what can start, and tell the others their place. On the loop."""
        while (replica := self._roomiest()) is not None and (reply := self._next()) is not None:
            reply.starts += 1
            reply.stream.move_up(0)
            reply.task = asyncio.get_running_loop().create_task(self._say(reply, replica))
            replica.replies.add(reply.task)
            # As a callback, since a task that is cancelled before its first step never runs a line of its own.
            reply.task.add_done_callback(partial(self._over, reply, replica))
        with self._lock:
            waiting = list(self._waiting)
        if not self.replicas.living():
            for reply in waiting:
                self._leave(reply)
                reply.sink.end(error=NONE_ANSWERS)
            return
        for place, reply in enumerate(waiting, start=1):
            reply.stream.move_up(place)

    def cancel(self, reply: Reply) -> None:
        """End a reply whose reader has asked for it, wherever it is. On the loop."""
        if self._leave(reply):
            reply.sink.end()
            self.dispatch()
        elif reply.task is not None:
            reply.task.cancel()

    async def close(self) -> None:
        """End every reply and take no more. On the loop."""
        with self._lock:
            self._closed = True
            waiting = self._waiting.clear()
        for reply in waiting:
            reply.sink.end(error=CLOSING)
        running = [task for replica in self.replicas.all for task in replica.replies]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _roomiest(self) -> Replica | None:
        with_room = [replica for replica in self.replicas.living() if len(replica.replies) < self._rows]
        return min(with_room, key=lambda replica: len(replica.replies), default=None)

    def _next(self) -> Reply | None:
        with self._lock:
            return self._waiting.serve() if len(self._waiting) else None

    def _leave(self, reply: Reply) -> bool:
        with self._lock:
            if reply not in self._waiting:
                return False
            self._waiting.leave(reply)
            return True

    async def _say(self, reply: Reply, replica: Replica) -> None:
        """Pass the tokens on until the reply finds its end."""
        pieces = replica.server.generate(replica.model_of(reply.version), reply.drawing)
        async with aclosing(pieces):
            async for tokens, ended in pieces:
                for token in tokens:
                    if reply.stream.cancelled or reply.sink.take(token):
                        return
                if ended is not None:
                    reply.sink.end(finish="stop" if ended == "stop" else "length")
                    return

    def _over(self, reply: Reply, replica: Replica, task: asyncio.Task[None]) -> None:
        """Whatever became of `task`: end the reply, or start it again, and let the next one run."""
        replica.replies.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(reply, replica, error)
        elif task.cancelled() and self._closed:
            reply.sink.end(error=CLOSING)
        elif task.cancelled() and not reply.stream.cancelled:
            self._start_again(reply)  # its server was taken out
        else:
            reply.sink.end()
        if not self._closed:
            self.dispatch()

    def _failed(self, reply: Reply, replica: Replica, error: BaseException) -> None:
        """A server that went away, lost an adapter or wants another key is of no use; the rest is of this reply."""
        if isinstance(error, ServerSilent):
            reply.sink.end(error=SILENT)
        elif isinstance(error, ServerGone):
            self.replicas.take_out(replica, str(error))
            self._start_again(reply)
        elif isinstance(error, ServerRefused) and error.status in (401, 403, 404, 500):
            self.replicas.take_out(replica, f"The model server {replica.server.url} refuses replies: {error}")
            self._start_again(reply)
        else:
            logger.error("A reply failed.", exc_info=error)
            reply.sink.end(error=FAILED.format(error=error))

    def _start_again(self, reply: Reply) -> None:
        if reply.stream.cancelled:
            reply.sink.end()
        elif reply.stream.completion_tokens:
            reply.sink.end(error=BROKE_OFF)
        elif reply.starts >= MOST_STARTS or not self.replicas.living():
            reply.sink.end(error=NONE_ANSWERS)
        else:
            reply.task = None
            with self._lock:
                self._waiting.put_back([reply])
