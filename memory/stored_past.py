"""A path of a stored conversation, of which any stretch is read without walking the rest.

Every message knows its depth and one far ancestor, its `jump` (Myers, "An applicative random-access stack", 1983), so
the ancestor at any depth is found in a logarithm of steps, however the tree has grown. This module reads what
`memory.conversations` wrote, and knows no tokens and no strategy.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, select, text

from memory.database import Database
from memory.past import Said
from memory.schema import Message
from memory.tables import escape, nodes, unescape

_WALK_UP = text(
    "WITH RECURSIVE steps (id, parent, role, content, depth) AS ("
    "SELECT id, parent, role, content, depth FROM nodes WHERE id = :leaf UNION ALL "
    "SELECT above.id, above.parent, above.role, above.content, above.depth FROM nodes AS above "
    "JOIN steps ON above.id = steps.parent WHERE steps.depth > :start) "
    "SELECT id, role, content, depth FROM steps ORDER BY depth"
)
_JUMP_UP = text(
    "WITH RECURSIVE steps (id, parent, depth, jump, jump_depth) AS ("
    "SELECT id, parent, depth, jump, jump_depth FROM nodes WHERE id = :leaf UNION ALL "
    "SELECT above.id, above.parent, above.depth, above.jump, above.jump_depth FROM nodes AS above "
    "JOIN steps ON above.id = CASE WHEN steps.jump_depth >= :depth THEN steps.jump ELSE steps.parent END "
    "WHERE steps.depth > :depth) "
    "SELECT id FROM steps WHERE depth = :depth"
)
"""Written out: made anew for every prompt, the expression would cost more than what it asks for."""


class StoredPast:
    """The path that ends at the node `leaf` (None: an empty path). What is said later does not lengthen it."""

    def __init__(self, database: Database, conversation_id: str, leaf: str | None, *, length: int) -> None:
        self._database = database
        self.conversation_id = conversation_id
        self.leaf = leaf
        self._length = length

    @property
    def length(self) -> int:
        """How many messages the path has."""
        return self._length

    def stretch(self, start: int, stop: int) -> list[Said]:
        """The messages at the places `start` to `stop`. Raises `StorageError`."""
        if self.leaf is None or start >= stop:
            return []
        with self._database.read() as connection:
            end = self.leaf if stop >= self._length else ancestor(connection, self.leaf, stop - 1)
            return _walk_up(connection, end, start)


def ancestor(connection: Connection, node_id: str, depth: int) -> str:
    """The id of the ancestor of `node_id` (or itself) at `depth`, which is not below it."""
    found = connection.scalar(_JUMP_UP, {"leaf": escape(node_id), "depth": depth})
    if found is None:
        raise ValueError(f"Message {node_id!r} has no ancestor at depth {depth}.")
    return unescape(found)


def place_below(connection: Connection, above: RowMapping | None) -> dict[str, Any]:
    """Depth and jump of a new message below the row `above` (None: a first message)."""
    if above is None:
        return {"depth": 0, "jump": None, "jump_depth": 0}
    depth, jump_depth = above["depth"], above["jump_depth"]
    if above["jump"] is not None:
        query = select(nodes.c.jump, nodes.c.jump_depth).where(nodes.c.id == above["jump"])
        further, further_depth = connection.execute(query).one()
        if further is not None and depth - jump_depth == jump_depth - further_depth:
            return {"depth": depth + 1, "jump": further, "jump_depth": further_depth}
    return {"depth": depth + 1, "jump": above["id"], "jump_depth": depth}


def _walk_up(connection: Connection, leaf: str, start: int) -> list[Said]:
    """The path from depth `start` to `leaf`, in order."""
    rows = connection.execute(_WALK_UP, {"leaf": escape(leaf), "start": start}).all()
    return [Said(unescape(id), Message(role, unescape(content)), depth) for id, role, content, depth in rows]
