"""A database with very many messages: three conversations of known lengths, and the rest in ordinary ones.

Rows are written many to a transaction, with the depth, the jump and the words that `Conversations.append` would give
each of them (a test compares the two). It measures nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, insert, select

from memory.database import Database
from memory.tables import conversations, nodes
from memory.word_index import index_messages

LENGTHS = (10, 1_000, 100_000)
OWNER = "benchmark"
ORDINARY_LENGTH = 40
MESSAGES_PER_WRITE = 5_000
_NOUNS = [
    "weather",
    "garden",
    "harbour",
    "lighthouse",
    "bread",
    "kitchen",
    "river",
    "music",
    "journey",
    "letter",
]
_VERBS = [
    "like",
    "remember",
    "paint",
    "repair",
    "follow",
    "describe",
    "visit",
    "collect",
    "compare",
    "forget",
]
_ADJECTIVES = ["old", "quiet", "blue", "narrow", "heavy", "distant", "warm", "crooked", "early", "foreign"]
_RARE_EVERY = 50_000


def fill(database: Database, *, messages: int, lengths: tuple[int, ...] = LENGTHS) -> bool:
    """Write `messages` messages unless they are there; says whether anything was written.

    Conversations ``long10``, ``long1000`` and so on hold as many messages as their name says, written last; a fifth of
    the ordinary ones is `OWNER`'s too, the others are spread over a thousand people.
    """
    with database.read() as connection:
        if (connection.scalar(select(func.count()).select_from(conversations)) or 0) > 0:
            return False
    rng = random.Random(0)
    ordinary = max(0, messages - sum(lengths)) // ORDINARY_LENGTH
    plan = [
        (f"k{number}", OWNER if number % 5 == 0 else f"person{number % 1000}", ORDINARY_LENGTH)
        for number in range(ordinary)
    ]
    plan += [(f"long{length}", OWNER, length) for length in lengths]
    portion: list[dict[str, Any]] = []
    begun: list[dict[str, Any]] = []
    for conversation_id, owner, length in plan:
        begun.append(_conversation(conversation_id, owner, length))
        for row in rows_of(conversation_id, length, rng=rng):
            portion.append(row | {"owner": owner})
        if len(portion) >= MESSAGES_PER_WRITE or conversation_id == plan[-1][0]:
            _write(database, begun, portion)
            begun, portion = [], []
    return True


def rows_of(conversation_id: str, length: int, *, rng: random.Random) -> Iterator[dict[str, Any]]:
    """A straight conversation as rows: role, content, depth and jump."""
    placed: list[tuple[int | None, int]] = []
    for depth in range(length):
        placed.append(_jump_below(depth - 1, placed) if depth else (None, 0))
        jump = placed[-1][0]
        yield {
            "id": f"{conversation_id}/{depth}",
            "conversation_id": conversation_id,
            "parent": f"{conversation_id}/{depth - 1}" if depth else None,
            "role": "user" if depth % 2 == 0 else "assistant",
            "content": sentence(rng, depth),
            "turn_id": None,
            "created_at": float(depth),
            "depth": depth,
            "jump": None if jump is None else f"{conversation_id}/{jump}",
            "jump_depth": placed[-1][1],
        }


def sentence(rng: random.Random, number: int) -> str:
    """A dozen words; one sentence in many holds a word that hardly any other has."""
    rare = " like a zyzzyva" if rng.randrange(_RARE_EVERY) == 0 else ""
    return (
        f"I {rng.choice(_VERBS)} the {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)} near the "
        f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)} on day {number}{rare}, and you?"
    )


def _jump_below(above: int, placed: list[tuple[int | None, int]]) -> tuple[int | None, int]:
    jump, jump_depth = placed[above]
    if jump is not None:
        further, further_depth = placed[jump]
        if further is not None and above - jump_depth == jump_depth - further_depth:
            return further, further_depth
    return above, above


def _conversation(conversation_id: str, owner: str, length: int) -> dict[str, Any]:
    return {
        "id": conversation_id,
        "owner": owner,
        "title": conversation_id,
        "system_prompt": "",
        "head": f"{conversation_id}/{length - 1}",
        "hidden": False,
        "created_at": 0.0,
        "updated_at": float(length),
    }


def _write(database: Database, begun: list[dict[str, Any]], portion: list[dict[str, Any]]) -> None:
    with database.write() as connection:
        connection.execute(insert(conversations), begun)
        first = (connection.scalar(select(func.max(nodes.c.sequence))) or 0) + 1
        rows = [{**row, "sequence": first + place} for place, row in enumerate(portion)]
        for start in range(0, len(rows), MESSAGES_PER_WRITE):
            some = rows[start : start + MESSAGES_PER_WRITE]
            connection.execute(
                insert(nodes), [{key: row[key] for key in row if key != "owner"} for row in some]
            )
            index_messages(
                connection,
                ((row["sequence"], row["content"], row["owner"], row["conversation_id"]) for row in some),
            )
