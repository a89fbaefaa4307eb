"""Which messages hold a word: the full-text index of the database, newest message first.

SQLite has it as an FTS5 table, PostgreSQL as a tsvector with a GIN index; both hold the words that `memory.words`
makes, so that one finds what the other finds. Whose message it is and where it was said stand in the index as words
of their own, so a search in one conversation touches no other. This module ranks nothing, and knows no visitor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, text

from memory.words import words_of

INSERTS = {
    "sqlite": "INSERT INTO said_words (rowid, words) VALUES (:sequence, :words)",
    "postgresql": "INSERT INTO said_words (sequence, words) "
    "VALUES (:sequence, array_to_tsvector(CAST(:words AS text[])))",
}
FINDS = {
    "sqlite": "SELECT rowid FROM said_words WHERE said_words MATCH :asked ORDER BY rowid DESC LIMIT :limit",
    # The order is applied to what the index gave: with it the planner may walk all messages from the newest instead.
    "postgresql": "WITH found AS MATERIALIZED (SELECT sequence FROM said_words WHERE words @@ CAST(:asked AS tsquery)) "
    "SELECT sequence FROM found ORDER BY sequence DESC LIMIT :limit",
}
FORGETS = {
    "sqlite": "DELETE FROM said_words WHERE rowid = :sequence",
    "postgresql": "DELETE FROM said_words WHERE sequence = :sequence",
}


def owner_word(owner: str) -> str:
    """The word under which the messages of `owner`'s conversations stand."""
    return f"o{_digest(owner)}"


def conversation_word(conversation_id: str) -> str:
    """The word under which the messages of a conversation stand."""
    return f"c{_digest(conversation_id)}"


def index_message(
    connection: Connection, sequence: int, content: str, *, owner: str, conversation_id: str
) -> None:
    """Enter the message with this sequence number. Part of the caller's transaction."""
    index_messages(connection, [(sequence, content, owner, conversation_id)])


def index_messages(connection: Connection, messages: Iterable[tuple[int, str, str, str]]) -> None:
    """Enter many: sequence number, content, owner and conversation of each."""
    dialect = connection.dialect.name
    rows = []
    for sequence, content, owner, conversation_id in messages:
        scope = [owner_word(owner), conversation_word(conversation_id)]
        words = [*scope, *(f"w{word}" for word in sorted(set(words_of(content))))]
        rows.append({"sequence": sequence, "words": " ".join(words) if dialect == "sqlite" else words})
    if rows:
        connection.execute(text(INSERTS[dialect]), rows)


def forget_messages(connection: Connection, sequences: Iterable[int]) -> None:
    """Take messages out of the index; their words cannot be found any more."""
    rows = [{"sequence": sequence} for sequence in sequences]
    if rows:
        connection.execute(text(FORGETS[connection.dialect.name]), rows)


def find_messages(
    connection: Connection, words: Sequence[str], *, within: str, limit: int, unfinished: bool = False
) -> list[int]:
    """The sequence numbers of the newest `limit` messages that hold all `words`, newest first.

    `within` is an `owner_word` or a `conversation_word`. `unfinished`: the last word may go on.
    """
    asked = [within, *(f"w{word}" for word in words)]
    if connection.dialect.name == "sqlite":
        expression = " ".join(f'"{word}"' for word in asked) + (" *" if unfinished and words else "")
    else:
        expression = " & ".join(f"'{word}'" for word in asked) + (":*" if unfinished and words else "")
    found = connection.execute(text(FINDS[connection.dialect.name]), {"asked": expression, "limit": limit})
    return [int(row[0]) for row in found]


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:16]
