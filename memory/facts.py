"""What a person asked to be remembered: short sentences of theirs, listed, changed and deleted at their word.

Nothing is noticed or guessed here: a fact is here because its owner said so. Deleted is deleted; prompts of the past
that held the fact stay as they were, because training must know what the policy saw.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import RowMapping, delete, select

from memory.database import Database, UnknownRecord
from memory.tables import facts

MOST_FACTS = 50
LONGEST_FACT = 300


class UnknownFact(UnknownRecord):
    """The owner has no fact with this id."""


class TooManyFacts(ValueError):
    """The owner has as many facts as are kept; the message says how many."""


@dataclass(frozen=True)
class Fact:
    """A sentence that its owner asked to be remembered."""

    id: str
    owner: str
    text: str
    created_at: float
    updated_at: float


class Facts:
    """All facts in one database. Every method raises `StorageError` when the database cannot take or give it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, owner: str) -> list[Fact]:
        """The owner's facts, oldest first."""
        query = select(facts).where(facts.c.owner == owner).order_by(facts.c.sequence)
        with self._database.read() as connection:
            return [_fact(row) for row in connection.execute(query).mappings()]

    def add(self, owner: str, text: str) -> Fact:
        """Remember `text`; the same sentence twice is one fact.

        Raises `ValueError` for an empty or overlong sentence and `TooManyFacts`.
        """
        cleaned = _cleaned(text)
        known = self.list(owner)
        for fact in known:
            if fact.text == cleaned:
                return fact
        if len(known) >= MOST_FACTS:
            raise TooManyFacts(
                f"{MOST_FACTS} facts are remembered already, as many as are kept. Delete one first."
            )
        now = self._database.clock()
        fact = Fact(self._database.new_id(), owner, cleaned, now, now)
        with self._database.write() as connection:
            values = {"id": fact.id, "owner": owner, "content": cleaned, "created_at": now, "updated_at": now}
            connection.execute(facts.insert().values(**values))
        return fact

    def change(self, owner: str, fact_id: str, text: str) -> None:
        """Let the fact say something else. Raises `UnknownFact`, and `ValueError` as `add` does."""
        values = {"content": _cleaned(text), "updated_at": self._database.clock()}
        with self._database.write() as connection:
            changed = connection.execute(
                facts.update().where(facts.c.id == fact_id, facts.c.owner == owner).values(**values)
            )
        if changed.rowcount == 0:
            raise UnknownFact("This is not remembered any more.")

    def delete(self, owner: str, fact_id: str) -> None:
        """Forget the fact. Raises `UnknownFact`."""
        with self._database.write() as connection:
            gone = connection.execute(delete(facts).where(facts.c.id == fact_id, facts.c.owner == owner))
        if gone.rowcount == 0:
            raise UnknownFact("This is not remembered any more.")

    def delete_all(self, owner: str) -> int:
        """Forget everything the owner asked to be remembered; returns how many facts that were."""
        with self._database.write() as connection:
            return int(connection.execute(delete(facts).where(facts.c.owner == owner)).rowcount)


def _cleaned(text: str) -> str:
    cleaned = " ".join(text.split())
    if not cleaned:
        raise ValueError("There is nothing to remember. Write a short sentence.")
    if len(cleaned) > LONGEST_FACT:
        raise ValueError(
            f"This is {len(cleaned)} characters long; a fact may have {LONGEST_FACT}. Say it in one short sentence."
        )
    return cleaned


def _fact(row: RowMapping) -> Fact:
    return Fact(row["id"], row["owner"], row["content"], row["created_at"], row["updated_at"])
