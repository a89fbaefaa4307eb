"""What the Feedback room asks for: under which guidelines an event was said, and of which versions a judgement speaks.

A revision is never edited once released; it says what the tables were, so it does not import `memory.tables`.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two columns with their indexes; `versions` is filled in for what was judged before."""
    op.add_column("events", sa.Column("guidelines", sa.Text, nullable=False, server_default=""))
    op.create_index("events_by_target", "events", ["target", "kind", "rater"])
    op.add_column("judgements", sa.Column("versions", sa.Text, nullable=False, server_default=""))
    op.create_index("judgements_by_versions", "judgements", ["standing", "versions", "kind", "value"])
    op.create_index("judgements_by_rater", "judgements", ["standing", "rater", "kind", "value"])
    _name_versions_of_turns()
    _name_versions_of_comparisons()
    _name_versions_of_rankings()


def downgrade() -> None:
    """Drop both columns; nothing that was said goes with them."""
    for index in ("judgements_by_rater", "judgements_by_versions"):
        op.drop_index(index, "judgements")
    op.drop_column("judgements", "versions")
    op.drop_index("events_by_target", "events")
    op.drop_column("events", "guidelines")


def _name_versions_of_turns() -> None:
    op.execute(
        "UPDATE judgements SET versions = COALESCE("
        "(SELECT ' ' || policy_version || ' ' FROM turns WHERE turns.id = judgements.target), '') "
        "WHERE kind IN ('rating', 'score', 'critique', 'correction')"
    )


def _name_versions_of_comparisons() -> None:
    op.execute(
        "UPDATE judgements SET versions = COALESCE((SELECT CASE "
        "WHEN version_a = version_b THEN ' ' || version_a || ' ' "
        "WHEN version_a < version_b THEN ' ' || version_a || ' ' || version_b || ' ' "
        "ELSE ' ' || version_b || ' ' || version_a || ' ' END "
        "FROM comparisons WHERE comparisons.id = judgements.target), '') WHERE kind = 'comparison'"
    )


def _name_versions_of_rankings() -> None:
    """A ranking's target is a digest, so its turns are read from the event."""
    connection = op.get_bind()
    ranked = connection.execute(
        sa.text(
            "SELECT judgements.sequence, events.payload FROM judgements JOIN events "
            "ON events.sequence = judgements.sequence WHERE judgements.kind = 'ranking' AND judgements.standing"
        )
    ).all()
    one = sa.text("SELECT policy_version FROM turns WHERE id = :id")
    name = sa.text("UPDATE judgements SET versions = :versions WHERE sequence = :sequence")
    for sequence, payload in ranked:
        found = {connection.scalar(one, {"id": turn}) for turn in json.loads(payload)["turn_ids"]}
        versions = " ".join(sorted(version for version in found if version))
        connection.execute(name, {"versions": f" {versions} ", "sequence": sequence})
