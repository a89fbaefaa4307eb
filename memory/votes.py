"""What people have said lately: how many judgements came in, and what they chose between two versions side by side.

It reads judgements that stand; what follows from them is others' to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, or_, select

from memory.database import Database
from memory.tables import comparisons, events, judgements

_TAUGHT = ("rating", "ranking", "correction")


@dataclass(frozen=True)
class Preferred:
    """One vote: `rater` preferred a reply of `version`."""

    rater: str
    version: str


def votes_between(database: Database, first: str, second: str, *, since: float) -> list[Preferred]:
    """The votes on pairs of these two versions that were asked from `since` on (Unix seconds)."""
    query = (
        select(judgements.c.rater, judgements.c.value, comparisons.c.version_a, comparisons.c.version_b)
        .join(comparisons, comparisons.c.id == judgements.c.target)
        .where(
            judgements.c.standing.is_(True),
            judgements.c.versions == f" {' '.join(sorted((first, second)))} ",
            judgements.c.kind == "comparison",
            judgements.c.value.in_(("A", "B")),
            comparisons.c.created_at >= since,
        )
        .order_by(judgements.c.sequence)
    )
    with database.read() as connection:
        rows = connection.execute(query).mappings().all()
    return [Preferred(row["rater"], row["version_a" if row["value"] == "A" else "version_b"]) for row in rows]


def judged_since(database: Database, since: float) -> int:
    """How many standing judgements that training can learn from came after `since` (Unix seconds): thumbs, decided
    pairs, rankings and corrections."""
    query = (
        select(func.count())
        .select_from(judgements.join(events, events.c.sequence == judgements.c.sequence))
        .where(
            judgements.c.standing.is_(True),
            or_(
                judgements.c.kind.in_(_TAUGHT),
                (judgements.c.kind == "comparison") & judgements.c.value.in_(("A", "B")),
            ),
            events.c.created_at > since,
        )
    )
    with database.read() as connection:
        return connection.scalar(query) or 0
