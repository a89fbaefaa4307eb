"""The first schema: conversations as trees, turns, comparisons, the log of judgements, runs and promotions.

A revision is never edited once released; it says what the tables were, so it does not import `memory.tables`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("nodes", "turns", "comparisons", "events")
REFUSAL = "what was said is never changed: append a later event instead"


def upgrade() -> None:
    """Make every table, and let the database itself refuse to rewrite what was said."""
    _create_conversations()
    _create_ledger()
    _create_log()
    _create_runs()
    for table in APPEND_ONLY:
        _refuse_changes(table)


def downgrade() -> None:
    """Drop everything. Only for tests: it takes the data along."""
    for table in (
        "promotions",
        "runs",
        "judgements",
        "events",
        "comparisons",
        "turns",
        "nodes",
        "conversations",
    ):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION thumbprint_append_only()")


def _sequence() -> sa.Column[int]:
    integer = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("sequence", integer, primary_key=True, autoincrement=True)


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _create_conversations() -> None:
    op.create_table(
        "conversations",
        _sequence(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *_texts("owner", "title", "system_prompt"),
        sa.Column("head", sa.Text, nullable=True),
        sa.Column("hidden", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("conversations_by_owner", "conversations", ["owner", "hidden", "updated_at"])
    op.create_table(
        "nodes",
        _sequence(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("conversation_id", sa.Text, sa.ForeignKey("conversations.id"), nullable=False),
        sa.Column("parent", sa.Text, sa.ForeignKey("nodes.id"), nullable=True),
        *_texts("role", "content"),
        sa.Column("turn_id", sa.Text, nullable=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("nodes_by_parent", "nodes", ["conversation_id", "parent"])


def _create_ledger() -> None:
    op.create_table(
        "turns",
        _sequence(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *_texts("conversation_id", "prompt", "completion", "policy_version", "fingerprint", "sampling"),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        *_texts("finish"),
        sa.Column("created_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("turns_by_time", "turns", ["created_at"])
    op.create_table(
        "comparisons",
        _sequence(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *_texts("conversation_id", "prompt", "turn_a", "turn_b", "completion_a", "completion_b"),
        *_texts("version_a", "version_b", "shown_first"),
        sa.Column("created_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("comparisons_by_turn_a", "comparisons", ["turn_a"])
    op.create_index("comparisons_by_turn_b", "comparisons", ["turn_b"])


def _create_log() -> None:
    op.create_table(
        "events",
        _sequence(),
        *_texts("category", "kind", "target", "criterion", "rater"),
        sa.Column("created_at", sa.Double, nullable=False),
        *_texts("payload"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_category", "events", ["category", "sequence"])
    op.create_index("events_by_kind", "events", ["category", "kind", "sequence"])
    op.create_table(
        "judgements",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("target", "rater", "kind", "criterion")),
        sa.Column("sequence", sa.BigInteger, sa.ForeignKey("events.sequence"), nullable=False, unique=True),
        sa.Column("standing", sa.Boolean, nullable=False),
        *_texts("value"),
        sa.Column("day", sa.Integer, nullable=False),
        *_texts("conversation_id"),
    )
    op.create_index("judgements_by_value", "judgements", ["standing", "kind", "value"])
    op.create_index("judgements_by_day", "judgements", ["standing", "day", "kind"])
    op.create_index("judgements_by_sequence", "judgements", ["standing", "sequence"])
    op.create_index("judgements_by_conversation", "judgements", ["conversation_id", "rater"])


def _create_runs() -> None:
    op.create_table(
        "runs",
        _sequence(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("live", sa.Integer, nullable=True, unique=True),
        *_texts("state", "method", "parent_version"),
        sa.Column("version", sa.Text, nullable=True),
        sa.Column("progress", sa.Double, nullable=False),
        *_texts("message", "folder", "requested_by"),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=True),
        sa.Column("process", sa.Text, nullable=True),
        *_texts("host"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("heartbeat_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "promotions",
        _sequence(),
        *_texts("version", "actor", "reason"),
        sa.Column("created_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )


def _refuse_changes(table: str) -> None:
    """A trigger that refuses UPDATE and DELETE on `table`."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE FUNCTION thumbprint_append_only() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
            f"RAISE EXCEPTION '%: {REFUSAL}', TG_TABLE_NAME USING ERRCODE = '23001'; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION thumbprint_append_only()"
        )
        return
    for change in ("update", "delete"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change} BEFORE {change.upper()} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table}: {REFUSAL}'); END"
        )
