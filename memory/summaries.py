"""The summaries of a conversation, kept in the database. What they say is made elsewhere.

A summary is true of one path only: the one that goes through its last message. A message that was replaced leads to
another path, on which the summary does not stand; it is kept, because arrows lead back. This module reads no text and
makes none.
"""

from __future__ import annotations

from sqlalchemy import delete, select

from memory.database import Database
from memory.past import Past
from memory.strategies.summary import Summary, is_on
from memory.tables import summaries

MOST_LOOKED_AT = 40
"""So many summaries are tried against the path, the furthest first; of those before them none is looked for."""


class StoredSummaries:
    """The summaries of one conversation by one maker; those of another maker (another model) are not seen."""

    def __init__(self, database: Database, conversation_id: str, *, maker: str) -> None:
        self._database = database
        self._conversation_id = conversation_id
        self._maker = maker

    def latest(self, past: Past, *, before: int) -> Summary | None:
        """The furthest one on the path that ends before the place `before`. Raises `StorageError`."""
        query = (
            select(summaries.c.through, summaries.c.depth, summaries.c.content)
            .where(
                summaries.c.conversation_id == self._conversation_id,
                summaries.c.maker == self._maker,
                summaries.c.depth < before,
            )
            .order_by(summaries.c.depth.desc(), summaries.c.sequence.desc())
            .limit(MOST_LOOKED_AT)
        )
        with self._database.read() as connection:
            found = connection.execute(query).all()
        for through, depth, content in found:
            if is_on(past, through, depth):
                return Summary(through, depth, content)
        return None

    def keep(self, summary: Summary) -> None:
        """Write one down. Raises `StorageError`."""
        with self._database.write() as connection:
            connection.execute(
                summaries.insert().values(
                    conversation_id=self._conversation_id,
                    through=summary.through,
                    depth=summary.depth,
                    content=summary.text,
                    maker=self._maker,
                    created_at=self._database.clock(),
                )
            )

    def forget(self) -> None:
        """Delete all summaries of the conversation, whoever made them. Raises `StorageError`."""
        with self._database.write() as connection:
            connection.execute(delete(summaries).where(summaries.c.conversation_id == self._conversation_id))
