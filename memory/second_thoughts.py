"""Taking the last thing back: what a rater said last in a conversation, and what they had said of it before.

Undoing is a new event like any other: the judgement that stood before is made again, or, where there was none, the
last one is retracted. Undoing an undo therefore brings it back. This module decides nothing about whose conversation
it is.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, RowMapping, select

from memory.database import Database
from memory.events import judgement_from
from memory.judgements import find_comparison
from memory.ledger import append_judgement, append_retraction
from memory.schema import Judgement
from memory.tables import events, judgements


def undo_last(database: Database, conversation_id: str, rater: str) -> str | None:
    """Put back what stood before the rater's last judgement or retraction in this conversation.

    Returns the kind of judgement that was undone, or None where there is nothing. Raises `StorageError`.
    """
    query = (
        select(judgements)
        .where(judgements.c.conversation_id == conversation_id, judgements.c.rater == rater)
        .order_by(judgements.c.sequence.desc())
        .limit(1)
    )
    with database.write() as connection:
        row = connection.execute(query).mappings().first()
        if row is None:
            return None
        before = _before(connection, row)
        if before is None:
            if not row["standing"]:
                return None
            append_retraction(connection, row, created_at=database.clock())
        else:
            judgement, guidelines = before
            said = replace(judgement, created_at=database.clock())
            append_judgement(connection, said, guidelines=guidelines)
        return str(row["kind"])


def _before(connection: Connection, row: RowMapping) -> tuple[Judgement, str] | None:
    """What stood under the row's key before its latest event, with the guidelines it was said under."""
    query = (
        select(events)
        .where(
            events.c.target == row["target"],
            events.c.kind == row["kind"],
            events.c.rater == row["rater"],
            events.c.criterion == row["criterion"],
            events.c.category != "occurrence",
            events.c.sequence < row["sequence"],
        )
        .order_by(events.c.sequence.desc())
        .limit(1)
    )
    found = connection.execute(query).mappings().first()
    if found is None or found["category"] == "retraction":
        return None
    question = find_comparison(connection, found["target"]) if found["kind"] == "comparison" else None
    return judgement_from(found, question), found["guidelines"]
