"""What long conversations need: places on a path, an index of words, summaries, facts, and how each is remembered.

A revision is never edited once released; it says what the tables were, so it does not import `memory.tables`. It does
import `memory.word_index`: the index must hold the words that the searching code asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from memory.tables import unescape
from memory.word_index import index_messages

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

REFUSAL = "what was said is never changed: append a later event instead"
AT_ONCE = 2_000


def upgrade() -> None:
    """Add columns and tables, give every message its place, and index all words said so far."""
    op.add_column("conversations", sa.Column("memory", sa.Text, nullable=False, server_default=""))
    for name in ("elsewhere", "pinned"):
        op.add_column("conversations", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("conversations", sa.Column("shared", sa.Text, nullable=True))
    op.create_index("conversations_by_share", "conversations", ["shared"], unique=True)
    op.add_column("nodes", sa.Column("depth", sa.Integer, nullable=False, server_default="0"))
    op.add_column("nodes", sa.Column("jump", sa.Text, nullable=True))
    op.add_column("nodes", sa.Column("jump_depth", sa.Integer, nullable=False, server_default="0"))
    _create_summaries()
    _create_facts()
    _create_vectors()
    _create_word_index()
    _place_messages()
    _index_words()


def downgrade() -> None:
    """Drop all of it; what was said stays, facts and summaries go."""
    op.drop_table("said_words")
    op.drop_table("vectors")
    op.drop_table("facts")
    op.drop_table("summaries")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE nodes DROP COLUMN jump_depth, DROP COLUMN jump, DROP COLUMN depth")
    else:
        for name in ("jump_depth", "jump", "depth"):
            op.drop_column("nodes", name)
    op.drop_index("conversations_by_share", "conversations")
    for name in ("shared", "pinned", "elsewhere", "memory"):
        op.drop_column("conversations", name)


def _sequence() -> sa.Column[int]:
    integer = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("sequence", integer, primary_key=True, autoincrement=True)


def _create_summaries() -> None:
    op.create_table(
        "summaries",
        _sequence(),
        sa.Column("conversation_id", sa.Text, sa.ForeignKey("conversations.id"), nullable=False),
        sa.Column("through", sa.Text, nullable=False),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("maker", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("summaries_by_place", "summaries", ["conversation_id", "maker", "depth"])


def _create_facts() -> None:
    op.create_table(
        "facts",
        _sequence(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("facts_by_owner", "facts", ["owner", "sequence"])


def _create_vectors() -> None:
    op.create_table(
        "vectors",
        sa.Column("maker", sa.Text, primary_key=True),
        sa.Column(
            "sequence", sa.BigInteger, sa.ForeignKey("nodes.sequence"), primary_key=True, autoincrement=False
        ),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )
    op.create_index("vectors_by_conversation", "vectors", ["maker", "conversation_id", "sequence"])


def _create_word_index() -> None:
    if op.get_bind().dialect.name == "sqlite":
        # Neither places nor counts within a message are kept: ranking reads the message itself.
        op.execute("CREATE VIRTUAL TABLE said_words USING fts5(words, detail=none, tokenize='ascii')")
        return
    op.execute("CREATE TABLE said_words (sequence BIGINT PRIMARY KEY, words TSVECTOR NOT NULL)")
    op.execute("CREATE INDEX said_words_by_word ON said_words USING gin (words)")


def _place_messages() -> None:
    """Depth and jump of every message. A parent's row is older than its children's, so one pass suffices."""
    connection = op.get_bind()
    _allow_changes(True)
    placed: dict[str, tuple[int, str | None, int]] = {}
    update = sa.text(
        "UPDATE nodes SET depth = :depth, jump = :jump, jump_depth = :jump_depth WHERE sequence = :at"
    )
    for rows in _in_portions(
        "SELECT sequence, id, parent FROM nodes WHERE sequence > :after ORDER BY sequence"
    ):
        updates = []
        for row in rows:
            place = _place_below(row["parent"], placed)
            placed[row["id"]] = place
            updates.append(
                {"depth": place[0], "jump": place[1], "jump_depth": place[2], "at": row["sequence"]}
            )
        connection.execute(update, updates)
    _allow_changes(False)


def _place_below(
    parent: str | None, placed: dict[str, tuple[int, str | None, int]]
) -> tuple[int, str | None, int]:
    if parent is None:
        return 0, None, 0
    depth, jump, jump_depth = placed[parent]
    if jump is not None:
        _, further, further_depth = placed[jump]
        if further is not None and depth - jump_depth == jump_depth - further_depth:
            return depth + 1, further, further_depth
    return depth + 1, parent, depth


def _index_words() -> None:
    query = (
        "SELECT nodes.sequence, content, owner, conversation_id FROM nodes "
        "JOIN conversations ON conversations.id = conversation_id "
        "WHERE nodes.sequence > :after ORDER BY nodes.sequence"
    )
    for rows in _in_portions(query):
        index_messages(
            op.get_bind(),
            [
                (
                    row["sequence"],
                    unescape(row["content"]),
                    unescape(row["owner"]),
                    unescape(row["conversation_id"]),
                )
                for row in rows
            ],
        )


def _in_portions(query: str) -> Iterator[list[sa.RowMapping]]:
    after = 0
    while True:
        rows: list[Any] = list(
            op.get_bind().execute(sa.text(f"{query} LIMIT {AT_ONCE}"), {"after": after}).mappings()
        )
        if not rows:
            return
        yield rows
        after = rows[-1]["sequence"]


def _allow_changes(allowed: bool) -> None:
    """Lift, for this transaction, the trigger that keeps messages as they were said; then put it back."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE nodes {'DISABLE' if allowed else 'ENABLE'} TRIGGER nodes_append_only")
    elif allowed:
        op.execute("DROP TRIGGER nodes_no_update")
    else:
        op.execute(
            "CREATE TRIGGER nodes_no_update BEFORE UPDATE ON nodes "
            f"BEGIN SELECT RAISE(ABORT, 'nodes: {REFUSAL}'); END"
        )
