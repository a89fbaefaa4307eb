"""Recall by any LangChain `Embeddings`: vectors of what was said, kept in the database, compared by their angle.

Making vectors is `VectorShelf.catch_up`, which whoever holds the conversation calls when nobody waits; finding embeds
only the question. At most `NEWEST` messages of a scope are compared, so a question costs no more in a longer life. The
vectors of another maker are another shelf. This module ranks by vectors alone and knows no words.
"""

from __future__ import annotations

import numpy as np
from langchain_core.embeddings import Embeddings
from sqlalchemy import RowMapping, select

from memory.database import Database
from memory.past import Past
from memory.search import conversation_of, passages_elsewhere, turn_around
from memory.strategies.recall import Passage, passage_of
from memory.tables import conversations, nodes, vectors

NEWEST = 4_000
AT_ONCE = 64


class VectorShelf:
    """The vectors that `embeddings` makes of what was said; `maker` names the embeddings (model and size)."""

    def __init__(self, database: Database, embeddings: Embeddings, *, maker: str) -> None:
        self._database = database
        self._embeddings = embeddings
        self._maker = maker

    def catch_up(self, conversation_id: str) -> int:
        """Make the vectors that are missing for the conversation's newest messages; returns how many were made.

        Raises `StorageError`, and whatever the embeddings raise.
        """
        missing = (
            select(nodes.c.sequence, nodes.c.content)
            .outerjoin(vectors, (vectors.c.sequence == nodes.c.sequence) & (vectors.c.maker == self._maker))
            .where(
                nodes.c.conversation_id == conversation_id,
                vectors.c.sequence.is_(None),
                nodes.c.content != "",
            )
            .order_by(nodes.c.sequence.desc())
            .limit(NEWEST)
        )
        with self._database.read() as connection:
            rows = connection.execute(missing).all()
        for begin in range(0, len(rows), AT_ONCE):
            portion = rows[begin : begin + AT_ONCE]
            made = self._embeddings.embed_documents([row.content for row in portion])
            values = [
                {
                    "maker": self._maker,
                    "sequence": row.sequence,
                    "conversation_id": conversation_id,
                    "vector": _packed(vector),
                }
                for row, vector in zip(portion, made, strict=True)
            ]
            with self._database.write() as connection:
                connection.execute(vectors.insert(), values)
        return len(rows)

    def nearest(
        self, asked: str, conversation_ids: list[str], *, limit: int
    ) -> list[tuple[RowMapping, float]]:
        """The messages of these conversations that come closest, with the cosine, closest first."""
        query = (
            select(
                nodes.c.id,
                nodes.c.conversation_id,
                nodes.c.role,
                nodes.c.content,
                nodes.c.depth,
                nodes.c.created_at,
                conversations.c.head,
                vectors.c.vector,
            )
            .select_from(vectors)
            .join(nodes, nodes.c.sequence == vectors.c.sequence)
            .join(conversations, conversations.c.id == nodes.c.conversation_id)
            .where(vectors.c.maker == self._maker, vectors.c.conversation_id.in_(conversation_ids))
            .order_by(vectors.c.sequence.desc())
            .limit(NEWEST)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        if not rows:
            return []
        held = np.stack([np.frombuffer(row["vector"], dtype=np.float32) for row in rows])
        cosines = held @ np.frombuffer(_packed(self._embeddings.embed_query(asked)), dtype=np.float32)
        best = np.argsort(-cosines, kind="stable")[:limit]
        return [(rows[place], float(cosines[place])) for place in best]


class EmbeddedRecollection:
    """What comes closest in meaning, as far as the embeddings see it. `elsewhere`: in the owner's other conversations
    too.
    """

    def __init__(
        self, database: Database, shelf: VectorShelf, owner: str, *, elsewhere: bool = False
    ) -> None:
        self._database = database
        self._shelf = shelf
        self._owner = owner
        self._elsewhere = elsewhere

    def find(self, asked: str, past: Past, *, before: int, limit: int) -> list[Passage]:
        """The closest turns before the place `before` of the path, and from elsewhere, closest first."""
        here = conversation_of(past)
        found: dict[tuple[str, ...], Passage] = {}
        for row, worth in self._shelf.nearest(asked, [here] if here else [], limit=8 * limit):
            if worth <= 0 or len(found) >= limit:
                break
            turn = turn_around(past, row["id"], row["depth"], before=before) if row["depth"] < before else []
            if turn:
                passage = passage_of(turn, score=worth)
                found.setdefault(passage.sources, passage)
        others = self._others(here) if self._elsewhere else []
        ranked = self._shelf.nearest(asked, others, limit=8 * limit) if others else []
        with self._database.read() as connection:
            for passage in passages_elsewhere(connection, ranked, limit=limit):
                found.setdefault(passage.sources, passage)
        return sorted(found.values(), key=lambda passage: -passage.score)[:limit]

    def _others(self, here: str | None) -> list[str]:
        query = (
            select(conversations.c.id)
            .where(conversations.c.owner == self._owner, conversations.c.hidden.is_(False))
            .order_by(conversations.c.updated_at.desc())
            .limit(200)
        )
        with self._database.read() as connection:
            return [str(row[0]) for row in connection.execute(query) if row[0] != here]


def _packed(vector: list[float]) -> bytes:
    values = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(values))
    return (values / length if length else values).tobytes()
