"""One exchange: a person's message and the reply, or the blind pair of replies, that is being written to
it.

An `Exchange` is the live view that pages watch: several tabs may look at the same one. It holds streams,
what was decided about them and the writes that are still to be made. It makes none of these decisions
itself and knows no database: `studio.chat` starts exchanges and takes votes, `studio.recording` settles
them.

Letters and places are separate coin tosses. The letter of a side is its name in the record; `sides` is the
order on the page, first or left side first. Neither tells which version wrote the side.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from memory.schema import Comparison, Finish, Label, Message, Side, Turn
from studio.policy.interface import ServedVersion, Stream

Phase = Literal["streaming", "vote", "unsaved", "finished"]
WHOLE: frozenset[Finish] = frozenset({"stop", "length"})
"""The ways in which a reply ends by itself; only such replies are ever compared."""


@dataclass(frozen=True)
class SideView:
    """One reply being written: its letter, the id its turn will have, its stream, what answers, and how it
    samples.
    """

    letter: Side
    turn_id: str
    stream: Stream
    served: ServedVersion
    sampling: dict[str, Any]

    @property
    def whole(self) -> bool:
        """Did the reply end by itself (not stopped, not broken off)?"""
        return self.stream.done and self.stream.finish in WHOLE

    @property
    def presentable(self) -> bool:
        """Is there an ended reply that a conversation can go on from: whole, or stopped after its first
        words?
        """
        return self.whole or (
            self.stream.done and self.stream.finish == "cancelled" and bool(self.stream.text)
        )


@dataclass(frozen=True)
class Vote:
    """A vote as it was cast; `early` when a side was still being written. `guidelines` names what the rater was
    shown of what to look for.
    """

    label: Label
    rater: str
    seconds: float
    created_at: float
    early: bool
    guidelines: str = ""


@dataclass(frozen=True)
class Reveal:
    """What a voter learns: which version wrote which side, and where the conversation goes on.

    `chosen_node` is None while the chosen reply is still being written (an early vote). `message` is a
    sentence for the person: what was recorded, and whether it replaced an earlier vote.
    """

    label: Label
    version_A: str
    fingerprint_A: str
    version_B: str
    fingerprint_B: str
    chosen_side: Side
    chosen_node: str | None
    message: str


class Exchange:
    """A message and the one or two replies to it. Thread-safe; fields are written under `lock`.

    `notice` is a sentence for the person about how it ended, empty when there is nothing to say; `error`
    says that the notice is about something that went wrong. `unsaved` is set while a reply exists that
    could not be written yet.
    """

    def __init__(
        self,
        *,
        id: str,
        owner: str,
        conversation_id: str,
        user_node: str,
        prompt: tuple[Message, ...],
        sides: tuple[SideView, ...],
        started_at: float,
    ) -> None:
        self.id = id
        self.owner = owner
        self.conversation_id = conversation_id
        self.user_node = user_node
        self.prompt = prompt
        self.sides = sides
        self.started_at = started_at
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.write_lock = threading.Lock()
        self.writes: deque[Callable[[], None]] = deque()
        self.ended: set[Side] = set()
        self.placed: set[Side] = set()
        self.head_side: Side | None = None
        self.nodes: dict[Side, str] = {}
        self.settled = False
        self.comparison: Comparison | None = None
        self.vote: Vote | None = None
        self.notice = ""
        self.error = False
        self.unsaved = ""

    @property
    def kind(self) -> Literal["single", "pair"]:
        """One reply, or two to choose between."""
        return "pair" if len(self.sides) == 2 else "single"

    @property
    def comparison_id(self) -> str | None:
        """The id of the comparison that this pair asks; None for a single reply. A pair's exchange id is
        the same.
        """
        return self.id if self.kind == "pair" else None

    @property
    def first(self) -> SideView:
        """The side shown first: on the left, or on top."""
        return self.sides[0]

    def side(self, letter: Side) -> SideView:
        """The side with this letter."""
        return next(side for side in self.sides if side.letter == letter)

    @property
    def chosen(self) -> SideView | None:
        """The side that the vote goes on with: the better one, or after a tie or both-bad the one shown
        first.
        """
        if self.vote is None:
            return None
        return self.side(self.vote.label) if self.vote.label in ("A", "B") else self.first

    @property
    def under_way(self) -> bool:
        """Is a reply still being written that the conversation needs before it can go on?"""
        with self.lock:
            chosen = self.chosen
            goes_on = chosen is not None and chosen.letter in self.ended and chosen.presentable
            return not (self.settled or goes_on)

    @property
    def asks(self) -> bool:
        """Is this a pair whose two replies have ended and that nobody has judged or skipped?"""
        with self.lock:
            return self.settled and self.comparison is not None and self.head_side is None

    @property
    def done(self) -> bool:
        """Have all sides ended and been written down (or is it known that they cannot be written yet)?"""
        with self.lock:
            return self.settled and (not self.writes or bool(self.unsaved))

    @property
    def phase(self) -> Phase:
        """Where it stands: being written, waiting for a vote, waiting for the disk, or over."""
        with self.lock:
            if self.under_way:
                return "streaming"
            if self.unsaved:
                return "unsaved"
            return "vote" if self.asks else "finished"

    @property
    def node_id(self) -> str | None:
        """The assistant's node that the conversation goes on from, once it is written."""
        with self.lock:
            return self.nodes.get(self.head_side) if self.head_side is not None else None

    def wait(self, timeout: float | None = None) -> bool:
        """Block until `done`; False when `timeout` seconds passed first."""
        with self.changed:
            return self.changed.wait_for(lambda: self.done, timeout)

    def wait_released(self, timeout: float | None = None) -> bool:
        """Block until the conversation can go on from here; False when `timeout` seconds passed first."""
        with self.changed:
            return self.changed.wait_for(lambda: not self.under_way and not self.writes, timeout)


class RecordedStream:
    """A stream that ended earlier and was read back from the ledger."""

    done = True
    error: str | None = None
    waiting = 0

    def __init__(self, turn: Turn) -> None:
        self.text = turn.completion
        self.finish: Finish | None = turn.finish
        self.served = ServedVersion(turn.policy_version, turn.fingerprint)
        self.prompt_tokens = turn.prompt_tokens
        self.completion_tokens = turn.completion_tokens

    def cancel(self) -> None:
        """Nothing is running, so there is nothing to cancel."""

    def wait(self, timeout: float | None = None) -> bool:
        """It has ended already."""
        return True

    def add_done_callback(self, callback: Callable[[Stream], None]) -> None:
        """Call back at once."""
        callback(self)

    def __iter__(self) -> Iterator[str]:
        """The whole text in one piece."""
        yield self.text

    async def pieces(self) -> AsyncIterator[str]:
        """The whole text in one piece."""
        yield self.text
