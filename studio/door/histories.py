"""Where a stateless request belongs: clients send the whole history each time, the studio keeps conversations.

A request goes on with a conversation when its history, message for message, is one that the client asked us to answer
before, followed by what we replied (or by what a correction made of it). An exact repeat of a request stands beside
the earlier one, so that its replies can be compared. Everything else begins a conversation of its own, told examples
included: clients that begin every request with the same made-up dialogue do not end up in one conversation. Training
and examination are split by conversation, so this decides what may be examined by what.

What was placed lately is remembered; after a restart the owner's latest conversations are searched by their titles.
This module knows no policy and starts nothing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from memory.conversations import Conversations
from memory.schema import Message
from studio.intake import title_of

SEARCHED = 200
"""How many of the owner's latest conversations a search looks at, by title."""
CANDIDATES = 20
"""How many of those with the right title it reads."""


@dataclass(frozen=True)
class Place:
    """A user's message in a conversation: what the replies to it stand below."""

    conversation_id: str
    node_id: str


class Histories:
    """Finds or makes the place of each request. Thread-safe; the last `keep` places are remembered."""

    def __init__(self, conversations: Conversations, *, keep: int = 4_096) -> None:
        self._conversations = conversations
        self._keep = keep
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Place] = OrderedDict()

    def place(self, owner: str, messages: tuple[Message, ...]) -> Place:
        """The place of a request, whose last message is the user's. Writes what is new of it.

        Raises `memory.database.StorageError`.
        """
        with self._lock:
            found = self._find(owner, messages)
            if found is None:
                found = self._go_on(owner, messages) or self._begin(owner, messages)
            self._remember(owner, messages, found)
            return found

    def _find(self, owner: str, messages: tuple[Message, ...]) -> Place | None:
        """The place of a request that was made before."""
        return self._known.get(_key(owner, messages)) or self._search(owner, messages)

    def _go_on(self, owner: str, messages: tuple[Message, ...]) -> Place | None:
        """Below our reply to the request that the history ends with, or below that request when it got none."""
        history = messages[:-1]
        replied = bool(history) and history[-1].role == "assistant"
        before = history[:-1] if replied else history
        if not before or before[-1].role != "user":
            return None
        asked = self._find(owner, before)
        if asked is None:
            return None
        parent = asked.node_id
        if replied:
            below = self._conversations.children(asked.conversation_id, parent)
            same = [node.id for node in below if node.message == history[-1]]
            if not same or not any(node.turn_id for node in below):
                return None
            parent = same[0]
        node = self._conversations.append(asked.conversation_id, messages[-1], parent=parent)
        return Place(asked.conversation_id, node.id)

    def _begin(self, owner: str, messages: tuple[Message, ...]) -> Place:
        system, said = _split(messages)
        conversation = self._conversations.create(owner, system_prompt=system, title=_title(said))
        parent: str | None = None
        for message in said:
            parent = self._conversations.append(conversation.id, message, parent=parent).id
        assert parent is not None, "a request holds at least the user's message"
        return Place(conversation.id, parent)

    def _search(self, owner: str, messages: tuple[Message, ...]) -> Place | None:
        system, said = _split(messages)
        wanted = (_title(said), system)
        alike = [
            conversation
            for conversation in self._conversations.list(owner, limit=SEARCHED)
            if (conversation.title, conversation.system_prompt) == wanted
        ]
        for conversation in alike[:CANDIDATES]:
            reached: list[str | None] = [None]
            for message in said:
                reached = [
                    node.id
                    for parent in reached
                    for node in self._conversations.children(conversation.id, parent)
                    if node.message == message
                ]
            if reached:
                return Place(conversation.id, str(reached[0]))
        return None

    def _remember(self, owner: str, messages: tuple[Message, ...], place: Place) -> None:
        key = _key(owner, messages)
        self._known[key] = place
        self._known.move_to_end(key)
        if len(self._known) > self._keep:
            self._known.popitem(last=False)


def _key(owner: str, messages: Sequence[Message]) -> bytes:
    said = [owner, *((message.role, message.content) for message in messages)]
    return hashlib.sha256(json.dumps(said).encode()).digest()


def _split(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The system text and the rest."""
    if messages[0].role == "system":
        return messages[0].content, messages[1:]
    return "", messages


def _title(said: Sequence[Message]) -> str:
    return title_of(next(message.content for message in said if message.role == "user"))
