"""Finding what was said: by a person who looks for it, and by the policy that is reminded of it.

Both ask the word index for the newest messages with each word and rank what comes by BM25. A word that stands in more
messages than are looked at has its frequency estimated from how closely they follow each other, so the work of a
search does not grow with the number of messages. Only the owner's conversations are searched, hidden ones never; a
reply that was retried or a message that was edited away is found by a person, and is not what the policy is reminded
of. This module decides nothing about prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, RowMapping, func, select

from memory.bm25 import Corpus, score
from memory.database import Database
from memory.past import Past, Said
from memory.schema import Message
from memory.stored_past import StoredPast, ancestor
from memory.strategies.recall import Passage, passage_of
from memory.tables import conversations, nodes
from memory.word_index import conversation_word, find_messages, owner_word
from memory.words import words_of

NEWEST_PER_WORD = 100
MOST_WORDS = 24
MOST_RANKED = 40


@dataclass(frozen=True)
class Found:
    """A message that a search found: where it stands, what it says, and how well it answers."""

    conversation_id: str
    title: str
    node_id: str
    message: Message
    created_at: float
    score: float


@dataclass(frozen=True)
class _Scope:
    """What is searched: its word in the index, its first message's number, and how many messages it has (None: nobody
    has counted).
    """

    word: str
    first: int
    texts: int | None


class Search:
    """All that was said in one database. Raises `StorageError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, owner: str, query: str, *, limit: int = 20) -> list[Found]:
        """Messages in the owner's conversations that hold every word of `query`, the best first.

        The last word may be unfinished. Of very many messages with these words the newest `MOST_RANKED` are ranked.
        """
        words = list(dict.fromkeys(words_of(query)))[:MOST_WORDS]
        if not words:
            return []
        unfinished = query[-1:].isalnum()
        with self._database.read() as connection:
            newest = find_messages(
                connection, words, within=owner_word(owner), limit=MOST_RANKED, unfinished=unfinished
            )
            rows = _rows(connection, newest)
        texts = [words_of(row["content"]) for row in rows]
        if unfinished:
            begun = words[-1]
            texts = [[begun if word.startswith(begun) else word for word in text] for text in texts]
        # All of them hold all of the words, so the words weigh alike; how often and in how short a text decides.
        corpus = Corpus(2.0 * len(rows), _average(texts), dict.fromkeys(words, float(len(rows))))
        ranked = [
            (score(words, text, corpus=corpus), row)
            for row, text in zip(rows, texts, strict=True)
            if row["owner"] == owner
        ]
        ranked.sort(key=lambda pair: (-pair[0], -pair[1]["sequence"]))
        return [
            Found(
                row["conversation_id"],
                row["title"],
                row["id"],
                Message(row["role"], row["content"]),
                row["created_at"],
                worth,
            )
            for worth, row in ranked[:limit]
        ]


class StoredRecollection:
    """What the policy is reminded of: the conversation's own path, and with `elsewhere` the owner's other ones."""

    def __init__(self, database: Database, owner: str, *, elsewhere: bool = False) -> None:
        self._database = database
        self._owner = owner
        self._elsewhere = elsewhere

    def find(self, asked: str, past: Past, *, before: int, limit: int) -> list[Passage]:
        """The best turns before the place `before` of the path, and from elsewhere, best first."""
        words = list(dict.fromkeys(words_of(asked)))[:MOST_WORDS]
        here = conversation_of(past)
        if not words:
            return []
        found: list[Passage] = []
        if here is not None and before > 0:
            with self._database.read() as connection:
                scope = _Scope(conversation_word(here), _first_message(connection, here), before)
                ranked = _ranked(connection, words, scope)
            earlier = [(row, worth) for row, worth in ranked if row["depth"] < before]
            found += _passages(earlier, past, before=before, limit=limit)
        if self._elsewhere:
            with self._database.read() as connection:
                scope = _Scope(owner_word(self._owner), _first_of_owner(connection, self._owner), None)
                ranked = _ranked(connection, words, scope)
                others = [
                    (row, worth)
                    for row, worth in ranked
                    if row["conversation_id"] != here and row["owner"] == self._owner
                ]
                found += passages_elsewhere(connection, others, limit=limit)
        return sorted(found, key=lambda passage: -passage.score)[:limit]


def conversation_of(past: Past) -> str | None:
    """The stored conversation that `past` is a path of, also when a message follows it that is not stored yet."""
    inner = getattr(past, "past", past)
    return inner.conversation_id if isinstance(inner, StoredPast) else None


def _ranked(connection: Connection, words: Sequence[str], scope: _Scope) -> list[tuple[RowMapping, float]]:
    """The messages of the scope that answer best to `words`, with their scores, best first."""
    by_word = {
        word: find_messages(connection, [word], within=scope.word, limit=NEWEST_PER_WORD) for word in words
    }
    corpus = _estimated(by_word, scope)
    rough: dict[int, float] = {}
    for word, sequences in by_word.items():
        for sequence in sequences:
            rough[sequence] = rough.get(sequence, 0.0) + corpus.idf(word)
    best = sorted(rough, key=lambda sequence: (-rough[sequence], -sequence))[:MOST_RANKED]
    rows = _rows(connection, best)
    contents = [words_of(row["content"]) for row in rows]
    corpus = replace(corpus, average_words=_average(contents))
    scored = [
        (row, score(words, content, corpus=corpus)) for row, content in zip(rows, contents, strict=True)
    ]
    return sorted(scored, key=lambda pair: (-pair[1], -pair[0]["sequence"]))


def _estimated(by_word: Mapping[str, Sequence[int]], scope: _Scope) -> Corpus:
    """In how many messages each word stands. A word that filled its list stands in more: it is taken to go on, back to
    the scope's first message, as densely as it stands in its newest ones.
    """
    newest = max((sequences[0] for sequences in by_word.values() if sequences), default=0)
    span = max(1, newest - scope.first + 1)
    containing = {
        word: len(sequences)
        * (span / (newest - sequences[-1] + 1) if len(sequences) == NEWEST_PER_WORD else 1.0)
        for word, sequences in by_word.items()
    }
    most = max(containing.values(), default=1.0)
    # Of an owner nobody counts the messages; the commonest word asked for tells their order of magnitude.
    texts = float(scope.texts) if scope.texts is not None else min(span, 3.0 * most)
    return Corpus(max(1.0, texts, most), 1.0, containing)


def _first_message(connection: Connection, conversation_id: str) -> int:
    query = select(func.min(nodes.c.sequence)).where(
        nodes.c.conversation_id == conversation_id, nodes.c.parent.is_(None)
    )
    return int(connection.scalar(query) or 0)


def _first_of_owner(connection: Connection, owner: str) -> int:
    query = (
        select(conversations.c.id)
        .where(conversations.c.owner == owner, conversations.c.hidden.is_(False))
        .order_by(conversations.c.sequence)
        .limit(1)
    )
    oldest = connection.scalar(query)
    return 0 if oldest is None else _first_message(connection, oldest)


def _passages(
    ranked: Iterable[tuple[RowMapping, float]], past: Past, *, before: int, limit: int
) -> list[Passage]:
    """The turns on the path that the ranked messages belong to; what was said on another branch is passed over."""
    found: dict[tuple[str, ...], Passage] = {}
    for row, worth in ranked:
        if worth <= 0 or len(found) >= limit:
            break
        turn = turn_around(past, row["id"], row["depth"], before=before)
        if turn:
            passage = passage_of(turn, score=worth)
            found.setdefault(passage.sources, passage)
    return list(found.values())


def passages_elsewhere(
    connection: Connection, ranked: Iterable[tuple[RowMapping, float]], *, limit: int
) -> list[Passage]:
    """The messages of other conversations, each by itself, where they stand on the path that is shown there."""
    found: list[Passage] = []
    for row, worth in ranked:
        if worth <= 0 or len(found) >= limit:
            break
        head = row["head"]
        if head is None:
            continue
        head_depth = connection.scalar(select(nodes.c.depth).where(nodes.c.id == head))
        if head_depth is None or head_depth < row["depth"]:
            continue
        if ancestor(connection, head, row["depth"]) == row["id"]:
            said = Said(row["id"], Message(row["role"], row["content"]), row["depth"])
            found.append(passage_of([said], score=worth, elsewhere=True, order=row["created_at"]))
    return found


def turn_around(past: Past, node_id: str, depth: int, *, before: int) -> list[Said]:
    """The turn on the path that this message belongs to, so far as it lies before the place `before`; nothing where the
    path does not go through the message.
    """
    near = past.stretch(max(0, depth - 2), min(depth + 3, before))
    first = next((place for place, one in enumerate(near) if one.depth == depth and one.id == node_id), None)
    if first is None:
        return []
    while first > 0 and near[first].message.role != "user":
        first -= 1
    last = first + 1
    while last < len(near) and near[last].message.role != "user":
        last += 1
    return near[first:last]


def _rows(connection: Connection, sequences: Sequence[int]) -> list[RowMapping]:
    """Messages with their conversations, in no particular order; those of hidden conversations are left out."""
    if not sequences:
        return []
    query = (
        select(
            nodes.c.sequence,
            nodes.c.id,
            nodes.c.conversation_id,
            nodes.c.role,
            nodes.c.content,
            nodes.c.depth,
            nodes.c.created_at,
            conversations.c.owner,
            conversations.c.title,
            conversations.c.head,
        )
        .join(conversations, conversations.c.id == nodes.c.conversation_id)
        .where(nodes.c.sequence.in_(list(sequences)), conversations.c.hidden.is_(False))
    )
    return list(connection.execute(query).mappings())


def _average(texts: Sequence[Sequence[str]]) -> float:
    return max(1.0, sum(map(len, texts)) / len(texts)) if texts else 1.0
