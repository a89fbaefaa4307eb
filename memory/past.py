"""What was said in a conversation, read from its end: as little of it as a prompt needs, however long it is.

A `Past` is one path through a conversation, oldest message first, of which any stretch can be read. `ListedPast` is a
list of messages (in anyone's LangChain chain), `Followed` a past with a message that is not written down yet; the one
over the database is `memory.stored_past`. Nothing here counts tokens or chooses what to keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from memory.schema import Message


@dataclass(frozen=True)
class Said:
    """A message of a path: the id of its node, and its place on the path, counted from 0."""

    id: str
    message: Message
    depth: int


class Past(Protocol):
    """One path through a conversation."""

    @property
    def length(self) -> int:
        """How many messages the path has."""

    def stretch(self, start: int, stop: int) -> list[Said]:
        """The messages at the places `start` (included) to `stop` (not included), both within the path, in order.

        The cost is that of the stretch, and grows at most with the logarithm of the path.
        """


class ListedPast:
    """The messages of a list. Ids name all that was said up to there, so that an edit changes every id after it."""

    def __init__(self, messages: Iterable[Message]) -> None:
        digest = hashlib.sha256()
        said = []
        for depth, message in enumerate(messages):
            text = message.content.encode("utf-8", "surrogatepass")
            digest.update(f"{message.role} {len(text)} ".encode() + text)
            said.append(Said(digest.hexdigest()[:32], message, depth))
        self._said = said

    @property
    def length(self) -> int:
        """How many messages the list has."""
        return len(self._said)

    def stretch(self, start: int, stop: int) -> list[Said]:
        """A slice of the list."""
        return self._said[start:stop]


class Followed:
    """`past` with one more message at its end, which has the id `id` while it is not written down."""

    def __init__(self, past: Past, message: Message, *, id: str = "") -> None:
        self.past = past
        self._last = Said(id, message, past.length)

    @property
    def length(self) -> int:
        """One more than the past's."""
        return self.past.length + 1

    def stretch(self, start: int, stop: int) -> list[Said]:
        """The past's stretch, and the message where it reaches that far."""
        before = self.past.length
        held = self.past.stretch(start, min(stop, before)) if start < before else []
        return [*held, self._last] if start <= before < stop else held


def at(past: Past, depth: int) -> Said | None:
    """The message at the place `depth`, or None where the path ends before it."""
    return past.stretch(depth, depth + 1)[0] if 0 <= depth < past.length else None


def joined(messages: Iterable[Message]) -> list[Message]:
    """The messages with neighbours of the same role made one.

    Many chat templates refuse two user messages in a row, and a message whose reply never came is followed by another.
    """
    return [said.message for said in joined_said(Said("", message, 0) for message in messages)]


def joined_said(said: Iterable[Said]) -> list[Said]:
    """The same for messages with their places: one made of several stands where the first of them stood."""
    joined: list[Said] = []
    for one in said:
        if joined and joined[-1].message.role == one.message.role:
            content = f"{joined[-1].message.content}\n\n{one.message.content}"
            joined[-1] = replace(joined[-1], message=Message(one.message.role, content))
        else:
            joined.append(one)
    return joined


def turns_of(said: Sequence[Said]) -> list[list[Said]]:
    """The stretch in turns: what the person said and the replies that follow it. Replies before that are left out."""
    turns: list[list[Said]] = []
    for one in said:
        begins = one.message.role == "user" and (not turns or turns[-1][-1].message.role != "user")
        if begins:
            turns.append([one])
        elif turns:
            turns[-1].append(one)
    return turns
