"""Whole trees of messages at once: reading one, copying a path of it, and planting one that came from elsewhere.

A copied message keeps its turn, so what was judged stays judged; a planted one has none, because no policy of this
studio said it. Each planting is one transaction: it is there whole or not at all. This module knows no file format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select

from memory.conversations import Conversations
from memory.database import Database
from memory.schema import Conversation, Message, Node
from memory.stored_past import place_below
from memory.tables import conversations, nodes
from memory.word_index import index_messages


@dataclass(frozen=True)
class Planted:
    """A message to be planted: its key, the key of the message before it (None: it is a first one), what is said, and
    the turn that said it, if there is one here. A parent stands before its children.
    """

    key: str
    parent: str | None
    message: Message
    turn_id: str | None = None


def tree_of(database: Database, conversation_id: str) -> list[Node]:
    """Every message of the conversation on every branch, parents before children. Raises `StorageError`."""
    query = select(nodes).where(nodes.c.conversation_id == conversation_id).order_by(nodes.c.sequence)
    with database.read() as connection:
        return [
            Node(
                row["id"],
                conversation_id,
                row["parent"],
                Message(row["role"], row["content"]),
                row["turn_id"],
                row["created_at"],
            )
            for row in connection.execute(query).mappings()
        ]


def branch_off(database: Database, conversation_id: str, node_id: str, *, title: str) -> Conversation:
    """A new conversation of the same owner that holds the path up to `node_id`, and goes on from there.

    Raises `UnknownConversation`, `UnknownNode`.
    """
    source = Conversations(database).get(conversation_id)
    path = Conversations(database).path(conversation_id, leaf=node_id)
    said = [Planted(node.id, node.parent, node.message, node.turn_id) for node in path]
    made = plant(database, source.owner, said, title=title, system_prompt=source.system_prompt, head=node_id)
    Conversations(database).remember_by(made.id, source.memory, elsewhere=source.elsewhere)
    return made


def plant(
    database: Database,
    owner: str,
    said: Sequence[Planted],
    *,
    title: str,
    system_prompt: str = "",
    head: str | None = None,
) -> Conversation:
    """A new conversation of `owner` with these messages; `head` is the key of the one that is shown last (None: the
    last of `said`). Raises `ValueError` for a message whose parent does not stand before it, and for a system message.
    """
    now = database.clock()
    conversation_id = database.new_id()
    rows: dict[str, RowMapping] = {}
    with database.write() as connection:
        connection.execute(
            conversations.insert().values(
                id=conversation_id,
                owner=owner,
                title=title,
                system_prompt=system_prompt,
                head=None,
                hidden=False,
                created_at=now,
                updated_at=now,
            )
        )
        for one in said:
            rows[one.key] = _write(connection, one, rows, conversation_id, new_id=database.new_id(), now=now)
        index_messages(
            connection, [(row["sequence"], row["content"], owner, conversation_id) for row in rows.values()]
        )
        last = rows.get(head) if head is not None else (rows[said[-1].key] if said else None)
        connection.execute(
            conversations.update()
            .where(conversations.c.id == conversation_id)
            .values(head=None if last is None else last["id"])
        )
    return Conversations(database).get(conversation_id)


def _write(
    connection: Connection,
    one: Planted,
    rows: dict[str, RowMapping],
    conversation_id: str,
    *,
    new_id: str,
    now: float,
) -> RowMapping:
    if one.message.role == "system":
        raise ValueError("A system message cannot be planted; it is the conversation's system prompt.")
    if one.parent is not None and one.parent not in rows:
        raise ValueError(f"Message {one.key!r} follows {one.parent!r}, which does not stand before it.")
    above = None if one.parent is None else rows[one.parent]
    values = {
        "id": new_id,
        "conversation_id": conversation_id,
        "parent": None if above is None else above["id"],
        "role": one.message.role,
        "content": one.message.content,
        "turn_id": one.turn_id,
        "created_at": now,
    }
    statement = nodes.insert().returning(*nodes.c).values(**values, **place_below(connection, above))
    return connection.execute(statement).mappings().one()
