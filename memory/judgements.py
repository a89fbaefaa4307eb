"""Reading the ledger: what each rater says now, and how much of it there is.

A judgement stands when it is the latest event of its rater about its target (and criterion) and has not been
retracted since. Counting reads the small table of what stands and never walks the log. Nothing here writes,
weighs raters, or knows what a trainer wants.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, RowMapping, Select, Table, func, or_, select

from memory.database import Database, UnknownRecord
from memory.events import comparison_from, judgement_from, occurrence_from, turn_from
from memory.schema import (
    Comparison,
    Correction,
    Critique,
    FeedbackCounts,
    Judgement,
    LabeledComparison,
    Occurrence,
    Ranking,
    Rating,
    Score,
    Turn,
)
from memory.tables import comparisons, events, judgements, turns

DAY_SECONDS = 86_400
"""A day of the charts and of `turns_today` is a UTC day."""

_IDS_PER_QUERY = 500
JudgementT = TypeVar("JudgementT", bound=Judgement)


class UnknownTurn(UnknownRecord):
    """No turn has this id."""


class UnknownComparison(UnknownRecord):
    """No comparison has this id."""


class LedgerReader:
    """The reading half of `memory.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def turn(self, turn_id: str) -> Turn:
        """The reply with its prompt as the policy saw it. Raises `UnknownTurn`."""
        with self._database.read() as connection:
            return find_turn(connection, turn_id)

    def turns_named(self, turn_ids: Collection[str]) -> dict[str, Turn]:
        """The turns with these ids, by id and in order of id; an id that is unknown is left out."""
        with self._database.read() as connection:
            found = _rows_by_id(connection, turns, sorted(turn_ids))
        return {row["id"]: turn_from(row) for row in found}

    def comparison(self, comparison_id: str) -> Comparison:
        """The question that was put. Raises `UnknownComparison`."""
        with self._database.read() as connection:
            found = find_comparison(connection, comparison_id)
        if found is None:
            raise UnknownComparison(f"There is no comparison {comparison_id!r}.")
        return found

    def comparison_of_turn(self, turn_id: str) -> Comparison | None:
        """The latest comparison of which the turn is a side, or None."""
        side = or_(comparisons.c.turn_a == turn_id, comparisons.c.turn_b == turn_id)
        query = select(comparisons).where(side).order_by(comparisons.c.sequence.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else comparison_from(row)

    def ratings(self) -> list[Rating]:
        """Every standing thumb, in order of time."""
        return self._standing(Rating, "rating")

    def comparisons(self) -> list[LabeledComparison]:
        """Every standing answer to a comparison, ties and both-bad included, in order of time."""
        return self._standing(LabeledComparison, "comparison")

    def rankings(self) -> list[Ranking]:
        """Every standing ranking, in order of time."""
        return self._standing(Ranking, "ranking")

    def scores(self) -> list[Score]:
        """Every standing score, in order of time."""
        return self._standing(Score, "score")

    def critiques(self) -> list[Critique]:
        """Every standing critique, in order of time."""
        return self._standing(Critique, "critique")

    def corrections(self) -> list[Correction]:
        """Every standing correction, in order of time."""
        return self._standing(Correction, "correction")

    def rating_of(self, turn_id: str, rater: str) -> Rating | None:
        """The rater's standing thumb on the turn, or None."""
        found = self._standing(Rating, "rating", target=turn_id, rater=rater, criterion="")
        return found[0] if found else None

    def label_of(self, comparison_id: str, rater: str) -> LabeledComparison | None:
        """The rater's standing answer to the comparison, or None."""
        found = self._standing(
            LabeledComparison, "comparison", target=comparison_id, rater=rater, criterion=""
        )
        return found[0] if found else None

    def judgements_of(self, conversation_id: str, rater: str) -> list[Judgement]:
        """All that the rater says now about the replies of one conversation, in order of time."""
        query = _standing_events().where(
            judgements.c.conversation_id == conversation_id, judgements.c.rater == rater
        )
        with self._database.read() as connection:
            return _decode(connection, _in_time(query))

    def standing_in_parts(self, kind: str, *, size: int) -> Iterator[list[Judgement]]:
        """Every standing judgement of `kind` in order of arrival, `size` at a time: a ledger of any length.

        Each part is read when it is asked for, so what changes meanwhile may be seen; no judgement comes twice
        unless it was made again.
        """
        after = 0
        while True:
            query = _standing_events().where(judgements.c.kind == kind, judgements.c.sequence > after)
            with self._database.read() as connection:
                rows = connection.execute(query.order_by(events.c.sequence).limit(size)).mappings().all()
                part = _decode_rows(connection, rows)
            if not rows:
                return
            after = rows[-1]["sequence"]
            yield part

    def occurrences(self, kind: str | None = None, *, limit: int = 100) -> list[Occurrence]:
        """The latest occurrences (of one kind), newest first."""
        query = select(events).where(events.c.category == "occurrence")
        if kind is not None:
            query = query.where(events.c.kind == kind)
        query = query.order_by(events.c.sequence.desc()).limit(limit)
        with self._database.read() as connection:
            return [occurrence_from(row) for row in connection.execute(query).mappings()]

    def noted(self, kind: str, target: str, actor: str | None = None) -> Occurrence | None:
        """The first occurrence of `kind` about `target` (by `actor`), or None."""
        query = select(events).where(
            events.c.target == target, events.c.kind == kind, events.c.category == "occurrence"
        )
        if actor is not None:
            query = query.where(events.c.rater == actor)
        with self._database.read() as connection:
            row = connection.execute(query.order_by(events.c.sequence).limit(1)).mappings().first()
        return None if row is None else occurrence_from(row)

    def counts(self) -> FeedbackCounts:
        """How much has been collected; only what stands is counted."""
        today = self._database.clock() // DAY_SECONDS * DAY_SECONDS
        by_value = (
            select(judgements.c.kind, judgements.c.value, func.count())
            .where(judgements.c.standing.is_(True))
            .group_by(judgements.c.kind, judgements.c.value)
        )
        with self._database.read() as connection:
            total = connection.scalar(select(func.count()).select_from(turns))
            new = connection.scalar(select(func.count()).where(turns.c.created_at >= today))
            rows = connection.execute(by_value).all()
        of_value: dict[tuple[str, str], int] = {(kind, value): count for kind, value, count in rows}
        of_kind: dict[str, int] = {}
        for (kind, _value), count in of_value.items():
            of_kind[kind] = of_kind.get(kind, 0) + count
        return FeedbackCounts(
            turns=total or 0,
            turns_today=new or 0,
            ratings_up=of_value.get(("rating", "1"), 0),
            ratings_down=of_value.get(("rating", "-1"), 0),
            comparisons_decided=of_value.get(("comparison", "A"), 0) + of_value.get(("comparison", "B"), 0),
            ties=of_value.get(("comparison", "tie"), 0),
            both_bad=of_value.get(("comparison", "both_bad"), 0),
            rankings=of_kind.get("ranking", 0),
            scores=of_kind.get("score", 0),
            critiques=of_kind.get("critique", 0),
            corrections=of_kind.get("correction", 0),
        )

    def count_standing(self, kinds: Sequence[str]) -> int:
        """How many judgements of these kinds stand."""
        query = select(func.count()).where(judgements.c.standing.is_(True), judgements.c.kind.in_(kinds))
        with self._database.read() as connection:
            return connection.scalar(query) or 0

    def last_sequence(self) -> int:
        """The number of the latest event, 0 before the first. It never falls."""
        with self._database.read() as connection:
            return connection.scalar(select(func.max(events.c.sequence))) or 0

    def judgements_since(self, sequence: int) -> int:
        """How many standing judgements were made or changed after event `sequence`; a mind changed twice is
        one."""
        query = select(func.count()).where(judgements.c.standing.is_(True), judgements.c.sequence > sequence)
        with self._database.read() as connection:
            return connection.scalar(query) or 0

    def judgements_by_day(self, days: int) -> list[tuple[str, str, int]]:
        """Standing judgements of the last `days` UTC days, today included: (ISO date, kind, count), in that
        order.

        Days and kinds without any are left out.
        """
        first = int(self._database.clock() // DAY_SECONDS) - days + 1
        query = (
            select(judgements.c.day, judgements.c.kind, func.count())
            .where(judgements.c.standing.is_(True), judgements.c.day >= first)
            .group_by(judgements.c.day, judgements.c.kind)
            .order_by(judgements.c.day, judgements.c.kind)
        )
        with self._database.read() as connection:
            return [(iso_date(day), kind, count) for day, kind, count in connection.execute(query)]

    def _standing(self, judgement: type[JudgementT], kind: str, **key: str) -> list[JudgementT]:
        query = _standing_events().where(judgements.c.kind == kind)
        query = query.where(*(judgements.c[name] == value for name, value in key.items()))
        with self._database.read() as connection:
            return [found for found in _decode(connection, _in_time(query)) if isinstance(found, judgement)]


def find_turn(connection: Connection, turn_id: str) -> Turn:
    """The turn with this id. Raises `UnknownTurn`."""
    row = connection.execute(select(turns).where(turns.c.id == turn_id)).mappings().first()
    if row is None:
        raise unknown_turn(turn_id)
    return turn_from(row)


def unknown_turn(turn_id: str) -> UnknownTurn:
    """What to say of a turn that is not in the ledger."""
    return UnknownTurn(f"There is no turn {turn_id!r}. Record the turn before judging it.")


def find_comparison(connection: Connection, comparison_id: str) -> Comparison | None:
    """The comparison with this id, or None."""
    row = connection.execute(select(comparisons).where(comparisons.c.id == comparison_id)).mappings().first()
    return None if row is None else comparison_from(row)


def iso_date(day: int) -> str:
    """The ISO date of a day counted from 1970-01-01."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _standing_events() -> Select[Any]:
    joined = events.join(judgements, judgements.c.sequence == events.c.sequence)
    return select(events).select_from(joined).where(judgements.c.standing.is_(True))


def _in_time(query: Select[Any]) -> Select[Any]:
    return query.order_by(events.c.created_at, events.c.sequence)


def _decode(connection: Connection, query: Select[Any]) -> list[Judgement]:
    return _decode_rows(connection, connection.execute(query).mappings().all())


def _decode_rows(connection: Connection, rows: Sequence[RowMapping]) -> list[Judgement]:
    """The judgements of event rows, in their order, with the questions that they answer."""
    answered = sorted({row["target"] for row in rows if row["kind"] == "comparison"})
    found = _rows_by_id(connection, comparisons, answered)
    asked = {row["id"]: comparison_from(row) for row in found}
    return [judgement_from(row, asked.get(row["target"])) for row in rows]


def _rows_by_id(connection: Connection, table: Table, ids: Sequence[str]) -> list[RowMapping]:
    """The rows with these ids, asked for in chunks that every database takes."""
    key: Column[str] = table.c.id
    found: list[RowMapping] = []
    for start in range(0, len(ids), _IDS_PER_QUERY):
        some = ids[start : start + _IDS_PER_QUERY]
        found += connection.execute(select(table).where(key.in_(some))).mappings()
    return found
