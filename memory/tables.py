"""The rows: tables and column types of everything that is remembered, the same on SQLite and PostgreSQL.

The migrations make these tables; this module only describes them to queries (a test compares the two). It
knows no rules: what may be written when is for `conversations`, `ledger` and `runs`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    false,
)

_ESCAPE = "\ufdd0"
"""A Unicode noncharacter, so no text written by a person holds it; doubled where one does."""
_UNSTORABLE = re.compile("[\ufdd0\x00\ud800-\udfff]")
_ESCAPED = re.compile("\ufdd0(\ufdd0|[0-9a-f]{4})")


def escape(value: str) -> str:
    """`value` without NUL and lone surrogates, which PostgreSQL and UTF-8 refuse; `unescape` gives it
    back."""
    return _UNSTORABLE.sub(
        lambda found: _ESCAPE + (_ESCAPE if found[0] == _ESCAPE else f"{ord(found[0]):04x}"), value
    )


def unescape(value: str) -> str:
    """The text that `escape` was given."""
    return _ESCAPED.sub(lambda found: _ESCAPE if found[1] == _ESCAPE else chr(int(found[1], 16)), value)


class LosslessText(TypeDecorator[str]):
    """Text that comes back exactly as it went in, whatever a model or a visitor produced."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else escape(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else unescape(value)


class LosslessJson(TypeDecorator[Any]):
    """A JSON value as text, readable in the database; not jsonb, which reorders keys and refuses NUL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return escape(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(unescape(value))


def _sequence() -> Column[int]:
    """Order of arrival. Two rows of the same clock tick are told apart by it, and no number is given
    twice."""
    return Column(
        "sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )


def _id() -> Column[str]:
    return Column("id", LosslessText, nullable=False, unique=True)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, LosslessText, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> Column[float]:
    return Column(name, Double, nullable=nullable)


metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    _sequence(),
    _id(),
    _text("owner"),
    _text("title"),
    _text("system_prompt"),
    _text("head", nullable=True),
    Column("hidden", Boolean, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    Column("memory", LosslessText, nullable=False, server_default=""),
    Column("elsewhere", Boolean, nullable=False, server_default=false()),
    Column("pinned", Boolean, nullable=False, server_default=false()),
    Column("shared", LosslessText, nullable=True),
    Index("conversations_by_owner", "owner", "hidden", "updated_at"),
    Index("conversations_by_share", "shared", unique=True),
    sqlite_autoincrement=True,
)

nodes = Table(
    "nodes",
    metadata,
    _sequence(),
    _id(),
    Column("conversation_id", LosslessText, ForeignKey("conversations.id"), nullable=False),
    Column("parent", LosslessText, ForeignKey("nodes.id"), nullable=True),
    _text("role"),
    _text("content"),
    _text("turn_id", nullable=True),
    _time("created_at"),
    Column("depth", Integer, nullable=False, server_default="0"),
    Column("jump", LosslessText, nullable=True),
    Column("jump_depth", Integer, nullable=False, server_default="0"),
    Index("nodes_by_parent", "conversation_id", "parent"),
    sqlite_autoincrement=True,
)
"""`depth` counts from 0 at a first message. `jump` is an ancestor chosen so that any other ancestor is found in a
logarithm of steps (Myers, "An applicative random-access stack", 1983); `jump_depth` is its depth."""

summaries = Table(
    "summaries",
    metadata,
    _sequence(),
    Column("conversation_id", LosslessText, ForeignKey("conversations.id"), nullable=False),
    _text("through"),
    Column("depth", Integer, nullable=False),
    _text("content"),
    _text("maker"),
    _time("created_at"),
    Index("summaries_by_place", "conversation_id", "maker", "depth"),
    sqlite_autoincrement=True,
)
"""What was said from the first message `through` this node, in short, as `maker` put it."""

vectors = Table(
    "vectors",
    metadata,
    Column("maker", LosslessText, primary_key=True),
    Column("sequence", BigInteger, ForeignKey("nodes.sequence"), primary_key=True, autoincrement=False),
    _text("conversation_id"),
    Column("vector", LargeBinary, nullable=False),
    Index("vectors_by_conversation", "maker", "conversation_id", "sequence"),
)
"""Embeddings of messages, as 32-bit floats of length 1. They can all be made again."""

facts = Table(
    "facts",
    metadata,
    _sequence(),
    _id(),
    _text("owner"),
    _text("content"),
    _time("created_at"),
    _time("updated_at"),
    Index("facts_by_owner", "owner", "sequence"),
    sqlite_autoincrement=True,
)
"""What a person asked to be remembered. Changed and deleted at their word, so not part of any log."""

turns = Table(
    "turns",
    metadata,
    _sequence(),
    _id(),
    _text("conversation_id"),
    Column("prompt", LosslessJson, nullable=False),
    _text("completion"),
    _text("policy_version"),
    _text("fingerprint"),
    Column("sampling", LosslessJson, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    _text("finish"),
    _time("created_at"),
    Index("turns_by_time", "created_at"),
    sqlite_autoincrement=True,
)

comparisons = Table(
    "comparisons",
    metadata,
    _sequence(),
    _id(),
    _text("conversation_id"),
    Column("prompt", LosslessJson, nullable=False),
    _text("turn_a"),
    _text("turn_b"),
    _text("completion_a"),
    _text("completion_b"),
    _text("version_a"),
    _text("version_b"),
    _text("shown_first"),
    _time("created_at"),
    Index("comparisons_by_turn_a", "turn_a"),
    Index("comparisons_by_turn_b", "turn_b"),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    _sequence(),
    _text("category"),
    _text("kind"),
    _text("target"),
    _text("criterion"),
    _text("rater"),
    _time("created_at"),
    Column("payload", LosslessJson, nullable=False),
    _text("guidelines"),
    Index("events_by_category", "category", "sequence"),
    Index("events_by_kind", "category", "kind", "sequence"),
    Index("events_by_target", "target", "kind", "rater"),
    sqlite_autoincrement=True,
)
"""The log: judgements, retractions and occurrences (whose actor stands under `rater`). Never updated, never
deleted. `guidelines` names the version of the guidelines that the rater saw; empty: none."""

judgements = Table(
    "judgements",
    metadata,
    Column("target", LosslessText, primary_key=True),
    Column("rater", LosslessText, primary_key=True),
    Column("kind", LosslessText, primary_key=True),
    Column("criterion", LosslessText, primary_key=True),
    Column("sequence", BigInteger, ForeignKey("events.sequence"), nullable=False, unique=True),
    Column("standing", Boolean, nullable=False),
    _text("value"),
    Column("day", Integer, nullable=False),
    _text("conversation_id"),
    _text("versions"),
    Index("judgements_by_value", "standing", "kind", "value"),
    Index("judgements_by_day", "standing", "day", "kind"),
    Index("judgements_by_sequence", "standing", "sequence"),
    Index("judgements_by_conversation", "conversation_id", "rater"),
    Index("judgements_by_versions", "standing", "versions", "kind", "value"),
    Index("judgements_by_rater", "standing", "rater", "kind", "value"),
)
"""What each rater says now: one row per key of the log, naming its latest event. Kept in step with `events`
in the same transaction, so that counting never walks the log. Not `standing`: that event is a retraction.
`versions` names the policy versions that wrote what is judged, sorted, a space before and after each."""

runs = Table(
    "runs",
    metadata,
    _sequence(),
    _id(),
    Column("live", Integer, nullable=True, unique=True),
    _text("state"),
    _text("method"),
    _text("parent_version"),
    _text("version", nullable=True),
    Column("progress", Double, nullable=False),
    _text("message"),
    _text("folder"),
    _text("requested_by"),
    Column("cancel_requested", Boolean, nullable=False),
    Column("pid", BigInteger, nullable=True),
    _text("process", nullable=True),
    _text("host"),
    _time("created_at"),
    _time("heartbeat_at"),
    _time("ended_at", nullable=True),
    sqlite_autoincrement=True,
)
"""`live` is 1 until a run has ended and NULL from then on; being unique, it lets one run be live at a
time."""

promotions = Table(
    "promotions",
    metadata,
    _sequence(),
    _text("version"),
    _text("actor"),
    _text("reason"),
    _time("created_at"),
    sqlite_autoincrement=True,
)
