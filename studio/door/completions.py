"""Replies to requests from outside: drawn by the policy, written down exactly as the chat writes its own.

Each reply is an exchange of one side, settled and recorded by the same parts as the chat's, so what is stored is what
the policy saw, a full disk is waited out, and what broke off is an occurrence. A client that goes away ends its replies
at once; that is never a judgement. This module knows no HTTP and never asks for a comparison: clients compare by
receipts.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from memory.conversations import Conversations
from memory.ledger import Ledger
from memory.past import joined
from memory.schema import BASE_VERSION, Message
from studio.door.asking import Asked
from studio.door.histories import Histories
from studio.door.receipts import Receipt, Receipts
from studio.exchange import Exchange, SideView
from studio.policy.interface import Policy, Sampling, ServedVersion, Stream, UnknownVersion
from studio.recording import Recorder
from studio.serving import Serving
from studio.settling import Settling

ALIAS = "thumbprint"
"""The model name that stands for whatever is served."""


@dataclass(frozen=True)
class Reply:
    """One reply under way: its exchange, what its receipt says, and the receipt as the client gets it."""

    exchange: Exchange
    receipt: Receipt
    signed: str

    @property
    def stream(self) -> Stream:
        """The reply itself."""
        return self.exchange.first.stream


@dataclass(frozen=True)
class Answer:
    """The replies to one request, all to the same prompt; `started_at` in Unix seconds."""

    model: str
    replies: tuple[Reply, ...]
    started_at: float


class Completions:
    """Answers requests. Thread-safe. `rng` draws seeds, `clock` gives Unix seconds."""

    def __init__(
        self,
        *,
        policy: Policy,
        serving: Serving,
        conversations: Conversations,
        ledger: Ledger,
        receipts: Receipts,
        new_id: Callable[[], str],
        rng: random.Random,
        clock: Callable[[], float],
        retry_seconds: float = 2.0,
    ) -> None:
        self._policy = policy
        self._serving = serving
        self._receipts = receipts
        self._new_id = new_id
        self._rng = rng
        self._clock = clock
        self._histories = Histories(conversations)
        self._recorder = Recorder(Settling(ledger, conversations, clock=clock), retry_seconds=retry_seconds)
        self._lock = threading.Lock()
        self._under_way: set[Stream] = set()

    def models(self) -> dict[str, ServedVersion]:
        """Every name that a request may ask for, and what answers to it now."""
        offered = {ALIAS: self._serving.current, BASE_VERSION: self._policy.base()}
        return offered | {served.version: served for served in self._policy.loaded()}

    def start(self, asked: Asked, *, client: str) -> Answer:
        """Begin the replies, then write the message that they answer, as the chat does; returns at once.

        Raises what `Policy.start` raises, and `StorageError`; then nothing was begun.
        """
        prompt = tuple(joined(asked.messages))
        owner = self._receipts.owner(client, asked.user)
        sides = self._start_sides(asked, prompt, owner=owner)
        try:
            place = self._histories.place(owner, asked.messages)
        except BaseException:  # whatever it was, nobody will read these replies
            _cancel(side.stream for side in sides)
            raise
        started_at = self._clock()
        replies = []
        for side in sides:
            receipt = Receipt(side.turn_id, place.node_id, side.served.version, side.served.fingerprint)
            exchange = Exchange(
                id=self._new_id(),
                owner=owner,
                conversation_id=place.conversation_id,
                user_node=place.node_id,
                prompt=prompt,
                sides=(side,),
                started_at=started_at,
            )
            replies.append(Reply(exchange, receipt, self._receipts.sign(receipt, client=client)))
            self._follow(exchange)
        return Answer(sides[0].served.version, tuple(replies), started_at)

    def hang_up(self, answer: Answer) -> None:
        """The client has gone: end what is still being written and keep what is there. Nobody's judgement."""
        for reply in answer.replies:
            if not reply.stream.done:
                reply.stream.cancel()
                self._recorder.note(
                    reply.exchange, "disconnect", reply.receipt.turn_id, actor=reply.exchange.owner
                )

    def close(self, *, timeout: float = 5.0) -> None:
        """End what is being written and write it down; `timeout` seconds in all for the streams."""
        deadline = time.monotonic() + timeout
        with self._lock:
            running = list(self._under_way)
        _cancel(running)
        for stream in running:
            stream.wait(max(0.0, deadline - time.monotonic()))
        self._recorder.close()

    def _start_sides(self, asked: Asked, prompt: tuple[Message, ...], *, owner: str) -> list[SideView]:
        """All replies of the request, or none: when there is no room for one, those before it are ended."""
        sides: list[SideView] = []
        try:
            with self._serving.hold():
                version = self._version_of(asked.model)
                for number in range(asked.count):
                    sides.append(self._start_side(asked, prompt, version, number=number, owner=owner))
        except BaseException:  # whatever it was, nobody will read these replies
            _cancel(side.stream for side in sides)
            raise
        return sides

    def _version_of(self, model: str) -> str:
        models = self.models()
        if model not in models:
            raise UnknownVersion(f"There is no model {model!r} here; there are: {', '.join(models)}.")
        return models[model].version

    def _start_side(
        self, asked: Asked, prompt: tuple[Message, ...], version: str, *, number: int, owner: str
    ) -> SideView:
        drawn: dict[str, Any] = {
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "max_new_tokens": asked.most_tokens,
            "seed": self._draw_seed() if asked.seed is None else asked.seed + number,
        }
        if asked.stop:
            drawn["stop"] = list(asked.stop)
        sampling = Sampling(**(drawn | {"stop": asked.stop}))
        stream = self._policy.start(prompt, version=version, sampling=sampling, owner=owner)
        return SideView("A", self._new_id(), stream, stream.served, drawn)

    def _draw_seed(self) -> int:
        with self._lock:
            return self._rng.getrandbits(31)

    def _follow(self, exchange: Exchange) -> None:
        stream = exchange.first.stream
        with self._lock:
            self._under_way.add(stream)

        def ended(_stream: Stream) -> None:
            with self._lock:
                self._under_way.discard(stream)
            self._recorder.submit(exchange)

        stream.add_done_callback(ended)


def _cancel(streams: Iterable[Stream]) -> None:
    for stream in streams:
        stream.cancel()
