"""Conversations as trees of messages: retry and edit make siblings, and nothing said is ever overwritten.

The system prompt belongs to the conversation and is not a node; the first user message has no parent. The
`head` of a conversation is the node at the end of the path being shown. This module knows no model and no
judgement, and trusts its callers about who may see which conversation.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, literal, select

from memory.database import Database, UnknownRecord
from memory.schema import Conversation, Message, Node
from memory.stored_past import StoredPast, place_below
from memory.tables import conversations, nodes, turns
from memory.word_index import index_message


class UnknownConversation(UnknownRecord):
    """No conversation has this id."""


class UnknownNode(UnknownRecord):
    """No node has this id, or it is another conversation's."""


class Conversations:
    """All conversations in one database. Every writer raises `StorageError` when the database cannot take
    it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, owner: str, *, system_prompt: str = "", title: str = "") -> Conversation:
        """A new, empty conversation of `owner`."""
        now = self._database.clock()
        made = Conversation(
            id=self._database.new_id(),
            owner=owner,
            title=title,
            system_prompt=system_prompt,
            head=None,
            created_at=now,
            updated_at=now,
        )
        with self._database.write() as connection:
            connection.execute(conversations.insert().values(**vars(made), hidden=False))
        return made

    def get(self, conversation_id: str) -> Conversation:
        """The conversation, hidden or not. Raises `UnknownConversation`."""
        with self._database.read() as connection:
            return _conversation(_conversation_row(connection, conversation_id))

    def rename(self, conversation_id: str, title: str) -> None:
        """Give the conversation another title; its place in the list stays. Raises `UnknownConversation`."""
        self._change(conversation_id, title=title)

    def set_system_prompt(self, conversation_id: str, text: str) -> None:
        """From the next reply on the policy is told `text`. Raises `UnknownConversation`."""
        self._change(conversation_id, system_prompt=text)

    def hide(self, conversation_id: str) -> None:
        """Leave the conversation out of the list from now on; nothing is deleted. Raises
        `UnknownConversation`."""
        self._change(conversation_id, hidden=True)

    def remember_by(self, conversation_id: str, memory: str, *, elsewhere: bool = False) -> None:
        """From the next reply on the policy is reminded by `memory` (see `memory.strategies`), and with `elsewhere`
        of the owner's other conversations too. Raises `UnknownConversation`."""
        self._change(conversation_id, memory=memory, elsewhere=elsewhere)

    def pin(self, conversation_id: str, pinned: bool) -> None:
        """Keep the conversation at the top of the list, or let it go. Raises `UnknownConversation`."""
        self._change(conversation_id, pinned=pinned)

    def share(self, conversation_id: str, word: str | None) -> None:
        """Let who knows `word` read the conversation; None: nobody any more. Raises `UnknownConversation`."""
        self._change(conversation_id, shared=word)

    def shared_by(self, word: str) -> Conversation:
        """The conversation that is shared under `word`. Raises `UnknownConversation`."""
        query = select(conversations).where(conversations.c.shared == word, conversations.c.hidden.is_(False))
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise UnknownConversation("This link shows no conversation. It may have been taken back.")
        return _conversation(row)

    def set_head(self, conversation_id: str, node_id: str | None) -> None:
        """Show the path that ends at `node_id` (None: show nothing). Raises `UnknownConversation`,
        `UnknownNode`."""
        with self._database.write() as connection:
            _conversation_row(connection, conversation_id)
            if node_id is not None:
                _node_row(connection, node_id, conversation_id=conversation_id)
            _update(connection, conversation_id, head=node_id)

    def append(
        self,
        conversation_id: str,
        message: Message,
        *,
        parent: str | None,
        turn_id: str | None = None,
        move_head: bool = True,
    ) -> Node:
        """Say `message` after `parent` (None: as a first message). `turn_id` names the turn that made a
        reply.

        Raises `UnknownConversation`, `UnknownNode` for a parent that is not in this conversation, and
        `ValueError` for a system message.
        """
        if message.role == "system":
            raise ValueError(
                "Message role is 'system'; expected 'user' or 'assistant'. The system prompt belongs to the "
                "conversation: use set_system_prompt."
            )
        now = self._database.clock()
        node = Node(
            id=self._database.new_id(),
            conversation_id=conversation_id,
            parent=parent,
            message=message,
            turn_id=turn_id,
            created_at=now,
        )
        with self._database.write() as connection:
            owner = _conversation_row(connection, conversation_id)["owner"]
            above = (
                _node_row(connection, parent, conversation_id=conversation_id) if parent is not None else None
            )
            values = _node_values(node) | place_below(connection, above)
            sequence = connection.scalar(nodes.insert().returning(nodes.c.sequence).values(**values))
            index_message(connection, sequence, message.content, owner=owner, conversation_id=conversation_id)
            _update(connection, conversation_id, updated_at=now, **({"head": node.id} if move_head else {}))
        return node

    def node(self, node_id: str) -> Node:
        """One node. Raises `UnknownNode`."""
        with self._database.read() as connection:
            return _node(_node_row(connection, node_id))

    def path(self, conversation_id: str, *, leaf: str | None = None, last: int | None = None) -> list[Node]:
        """The nodes from the first message to `leaf` (default: the head), in the order in which they were
        said; with `last` only so many of them, those nearest the leaf.

        Empty while there is no head. Raises `UnknownConversation`, `UnknownNode`.
        """
        with self._database.read() as connection:
            end = leaf if leaf is not None else _conversation_row(connection, conversation_id)["head"]
            if end is None:
                return []
            _node_row(connection, end, conversation_id=conversation_id)
            steps = select(nodes, literal(0).label("above_leaf")).where(nodes.c.id == end).cte(recursive=True)
            further = select(nodes, steps.c.above_leaf + 1).join(steps, nodes.c.id == steps.c.parent)
            if last is not None:
                further = further.where(steps.c.above_leaf + 1 < last)
            steps = steps.union_all(further)
            rows = connection.execute(select(steps).order_by(steps.c.above_leaf.desc())).mappings()
            return [_node(row) for row in rows]

    def past(self, conversation_id: str, *, leaf: str | None = None) -> StoredPast:
        """The path to `leaf` (default: the head) without reading it: any stretch of it can be asked for.

        Raises `UnknownConversation`, `UnknownNode`.
        """
        with self._database.read() as connection:
            end = leaf if leaf is not None else _conversation_row(connection, conversation_id)["head"]
            row = None if end is None else _node_row(connection, end, conversation_id=conversation_id)
        return StoredPast(self._database, conversation_id, end, length=0 if row is None else row["depth"] + 1)

    def past_above(self, node: Node) -> StoredPast:
        """The path that ends right before `node`."""
        if node.parent is None:
            return StoredPast(self._database, node.conversation_id, None, length=0)
        return self.past(node.conversation_id, leaf=node.parent)

    def siblings(self, node_id: str) -> list[Node]:
        """The node and those beside it (same parent), oldest first. Raises `UnknownNode`."""
        with self._database.read() as connection:
            row = _node_row(connection, node_id)
            return _children(connection, row["conversation_id"], row["parent"])

    def lenders(self, conversation_id: str) -> list[str]:
        """The conversations whose turns stand in this one, because it branched off from them."""
        query = (
            select(turns.c.conversation_id)
            .join(nodes, nodes.c.turn_id == turns.c.id)
            .where(nodes.c.conversation_id == conversation_id, turns.c.conversation_id != conversation_id)
            .distinct()
        )
        with self._database.read() as connection:
            return [str(row[0]) for row in connection.execute(query)]

    def children(self, conversation_id: str, parent: str | None) -> list[Node]:
        """What was said right after `parent` (None: the first messages), oldest first."""
        with self._database.read() as connection:
            return _children(connection, conversation_id, parent)

    def list(self, owner: str, *, limit: int = 200) -> list[Conversation]:
        """The owner's conversations: pinned ones first, then the one in which something was said last; hidden ones
        left out."""
        query = (
            select(conversations)
            .where(conversations.c.owner == owner, conversations.c.hidden.is_(False))
            .order_by(
                conversations.c.pinned.desc(),
                conversations.c.updated_at.desc(),
                conversations.c.sequence.desc(),
            )
            .limit(limit)
        )
        with self._database.read() as connection:
            return [_conversation(row) for row in connection.execute(query).mappings()]

    def _change(self, conversation_id: str, **values: Any) -> None:
        with self._database.write() as connection:
            _conversation_row(connection, conversation_id)
            _update(connection, conversation_id, **values)


def _update(connection: Connection, conversation_id: str, **values: Any) -> None:
    connection.execute(conversations.update().where(conversations.c.id == conversation_id).values(**values))


def _conversation_row(connection: Connection, conversation_id: str) -> RowMapping:
    row = (
        connection.execute(select(conversations).where(conversations.c.id == conversation_id))
        .mappings()
        .first()
    )
    if row is None:
        raise UnknownConversation(f"There is no conversation {conversation_id!r}. Choose one from the list.")
    return row


def _node_row(connection: Connection, node_id: str, *, conversation_id: str | None = None) -> RowMapping:
    row = connection.execute(select(nodes).where(nodes.c.id == node_id)).mappings().first()
    if row is None:
        raise UnknownNode(f"There is no message {node_id!r}.")
    if conversation_id is not None and row["conversation_id"] != conversation_id:
        raise UnknownNode(f"Message {node_id!r} is not in conversation {conversation_id!r}.")
    return row


def _children(connection: Connection, conversation_id: str, parent: str | None) -> list[Node]:
    beside = nodes.c.parent.is_(None) if parent is None else nodes.c.parent == parent
    query = select(nodes).where(nodes.c.conversation_id == conversation_id, beside).order_by(nodes.c.sequence)
    return [_node(row) for row in connection.execute(query).mappings()]


def _conversation(row: RowMapping) -> Conversation:
    return Conversation(
        id=row["id"],
        owner=row["owner"],
        title=row["title"],
        system_prompt=row["system_prompt"],
        head=row["head"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        memory=row["memory"],
        elsewhere=row["elsewhere"],
        pinned=row["pinned"],
        shared=row["shared"],
    )


def _node(row: RowMapping) -> Node:
    return Node(
        id=row["id"],
        conversation_id=row["conversation_id"],
        parent=row["parent"],
        message=Message(row["role"], row["content"]),
        turn_id=row["turn_id"],
        created_at=row["created_at"],
    )


def _node_values(node: Node) -> dict[str, Any]:
    values = dict(vars(node))
    message = values.pop("message")
    return values | {"role": message.role, "content": message.content}
