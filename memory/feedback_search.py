"""Looking through what people said: filtered, searched, a page at a time, and summed up. Counted by the database.

Only what stands is shown: of each rater the latest about each target. Rows are named by the number of their event,
which pages go by, so that a page stays the page while more is said. A search looks for words, without regard to case,
in the judged replies and in what raters wrote. This module knows no page and weighs nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, func, or_, select, type_coerce

from memory.database import Database
from memory.tables import comparisons, events, judgements, turns

PAGE = 25
_NEAR = 4_000
"""So many of the newest judgements are looked at one by one before all texts are gone through."""
MOST_COUNTED = 10_000
"""A search counts its finds up to here; beyond, it says that there are more."""


@dataclass(frozen=True)
class Filter:
    """What to look for; empty fields do not narrow. `day` counts from 1970-01-01; `before` is the event number above
    which nothing is shown (0: from the newest)."""

    kind: str = ""
    value: str = ""
    version: str = ""
    rater: str = ""
    day: int | None = None
    text: str = ""
    before: int = 0


@dataclass(frozen=True)
class Said:
    """One judgement as a row: what was said (`payload`), of which reply, by whom, and under which guidelines.

    `reply` is the judged reply; of a comparison the preferred one (`other` is its rival), or its first.
    """

    sequence: int
    kind: str
    value: str
    criterion: str
    rater: str
    created_at: float
    versions: tuple[str, ...]
    guidelines: str
    payload: Mapping[str, Any]
    reply: str = ""
    other: str = ""


@dataclass(frozen=True)
class Page:
    """Some of what was found, newest first. `more` says whether there is an older page; `total` is how many there are
    in all, counted up to `MOST_COUNTED`; None where nobody counted, because there are many or it is not the first
    page."""

    rows: tuple[Said, ...]
    more: bool
    total: int | None


@dataclass(frozen=True)
class RaterRow:
    """What one rater has said: how many judgements, of which comparisons, and their thumbs and ties."""

    rater: str
    judgements: int
    comparisons: int
    ties: int
    up: int
    down: int


@dataclass(frozen=True)
class Summary:
    """How much of each kind and value there is per version, and who the versions and guidelines are.

    `by_version` maps a version to counts by (kind, value). A judgement of replies by two versions counts for both.
    """

    by_version: Mapping[str, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    raters: int = 0


class FeedbackSearch:
    """Reads one database. Every reader raises `StorageError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, wanted: Filter, *, size: int = PAGE) -> Page:
        """The newest `size` judgements that fit, before `wanted.before`."""
        with self._database.read() as connection:
            fits = _conditions(wanted)
            found, total = _find(connection, wanted, fits, size=size)
            rows = _rows(connection, found[:size])
        return Page(tuple(rows), len(found) > size, None if wanted.before else total)

    def summary(self) -> Summary:
        """What was said of each version."""
        grouped = (
            select(judgements.c.versions, judgements.c.kind, judgements.c.value, func.count())
            .where(judgements.c.standing.is_(True))
            .group_by(judgements.c.versions, judgements.c.kind, judgements.c.value)
        )
        raters = select(func.count(judgements.c.rater.distinct())).where(judgements.c.standing.is_(True))
        found: dict[str, Counter[tuple[str, str]]] = {}
        with self._database.read() as connection:
            for versions, kind, value, number in connection.execute(grouped):
                for version in versions.split():
                    found.setdefault(version, Counter())[kind, value] += number
            return Summary(found, connection.scalar(raters) or 0)

    def raters(self, *, limit: int = 20) -> list[RaterRow]:
        """Those who said most, in that order."""
        grouped = (
            select(judgements.c.rater, judgements.c.kind, judgements.c.value, func.count())
            .where(judgements.c.standing.is_(True))
            .group_by(judgements.c.rater, judgements.c.kind, judgements.c.value)
        )
        said: dict[str, Counter[tuple[str, str]]] = {}
        with self._database.read() as connection:
            for rater, kind, value, number in connection.execute(grouped):
                said.setdefault(rater, Counter())[kind, value] += number
        rows = [_rater_row(rater, counts) for rater, counts in said.items()]
        return sorted(rows, key=lambda row: (-row.judgements, row.rater))[:limit]

    def count_by(self, rater: str) -> int:
        """How many judgements of this rater stand."""
        query = select(func.count()).where(judgements.c.standing.is_(True), judgements.c.rater == rater)
        with self._database.read() as connection:
            return connection.scalar(query) or 0


def _find(
    connection: Connection, wanted: Filter, fits: Sequence[ColumnElement[bool]], *, size: int
) -> tuple[list[int], int | None]:
    """The numbers of a page and one more, and how many fit in all (None where that was not counted).

    A word that many used is found in the newest judgements, one after the other; only for one that few used are all
    texts gone through, from the other side.
    """
    newest = select(judgements.c.sequence).where(*fits).order_by(judgements.c.sequence.desc())
    if wanted.before:
        newest = newest.where(judgements.c.sequence < wanted.before)
    text = wanted.text.strip()
    if not text:
        found = list(connection.scalars(newest.limit(size + 1)))
        counted = select(judgements.c.sequence).where(*fits).limit(MOST_COUNTED).subquery()
        return found, connection.scalar(select(func.count()).select_from(counted))
    folds_case = connection.dialect.name == "sqlite"
    near = newest.limit(_NEAR).subquery()
    among = select(near.c.sequence).join(judgements, judgements.c.sequence == near.c.sequence)
    among = among.where(_says_itself(text, folds_case=folds_case)).order_by(near.c.sequence.desc())
    found = list(connection.scalars(among.limit(size + 1)))
    if len(found) > size:
        return found, None
    every = list(connection.scalars(newest.where(_says(text, folds_case=folds_case)).limit(MOST_COUNTED)))
    return every[: size + 1], len(every)


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    fits: list[ColumnElement[bool]] = [judgements.c.standing.is_(True)]
    for column, value in (
        (judgements.c.kind, wanted.kind),
        (judgements.c.value, wanted.value),
        (judgements.c.rater, wanted.rater),
    ):
        if value:
            fits.append(column == value)
    if wanted.version:
        fits.append(judgements.c.versions.contains(f" {wanted.version} ", autoescape=True))
    if wanted.day is not None:
        fits.append(judgements.c.day == wanted.day)
    return fits


def _says(text: str, *, folds_case: bool) -> ColumnElement[bool]:
    """Whether the judged reply, or what the rater wrote of it, holds this text: sought in all texts at once."""
    replies = select(turns.c.id).where(_holds(turns.c.completion, text, folds_case=folds_case))
    pairs = select(comparisons.c.id).where(_of_pair(text, folds_case=folds_case))
    words = select(events.c.sequence).where(
        events.c.category == "judgement", *_written(text, folds_case=folds_case)
    )
    return or_(
        judgements.c.target.in_(replies), judgements.c.target.in_(pairs), judgements.c.sequence.in_(words)
    )


def _says_itself(text: str, *, folds_case: bool) -> ColumnElement[bool]:
    """The same of one judgement after the other: its reply, its pair and its words are looked up."""
    replies = select(turns.c.id).where(
        turns.c.id == judgements.c.target, _holds(turns.c.completion, text, folds_case=folds_case)
    )
    pairs = select(comparisons.c.id).where(
        comparisons.c.id == judgements.c.target, _of_pair(text, folds_case=folds_case)
    )
    words = select(events.c.sequence).where(
        events.c.sequence == judgements.c.sequence, *_written(text, folds_case=folds_case)
    )
    return or_(replies.exists(), pairs.exists(), words.exists())


def _of_pair(text: str, *, folds_case: bool) -> ColumnElement[bool]:
    sides = (comparisons.c.completion_a, comparisons.c.completion_b)
    return or_(*(_holds(side, text, folds_case=folds_case) for side in sides))


def _written(text: str, *, folds_case: bool) -> tuple[ColumnElement[bool], ...]:
    """That an event carries words of a rater's, with this text among them."""
    payload = type_coerce(events.c.payload, Text())
    wrote = events.c.kind.in_(("rating", "critique", "correction"))
    return wrote, _holds(payload, text, folds_case=folds_case)


def _holds(column: ColumnElement[str], text: str, *, folds_case: bool) -> ColumnElement[bool]:
    """`folds_case`: the database's LIKE has no regard to case by itself (of ASCII's letters), so no copy in lower case
    has to be made of every text."""
    return (column.contains if folds_case else column.icontains)(text, autoescape=True)


def _rows(connection: Connection, sequences: Sequence[int]) -> list[Said]:
    """The judgements of these events, in this order, with the replies that they are about."""
    query: Select[Any] = (
        select(events, judgements.c.versions, judgements.c.value)
        .join(judgements, judgements.c.sequence == events.c.sequence)
        .where(events.c.sequence.in_(sequences))
        .order_by(events.c.sequence.desc())
    )
    found = connection.execute(query).mappings().all()
    named = {row["target"] for row in found}
    named |= {row["payload"]["turn_ids"][0] for row in found if row["kind"] == "ranking"}
    texts = select(turns.c.id, turns.c.completion).where(turns.c.id.in_(named))
    replies = {row.id: row.completion for row in connection.execute(texts)}
    pairs = {
        row["id"]: (row["completion_a"], row["completion_b"])
        for row in connection.execute(select(comparisons).where(comparisons.c.id.in_(named))).mappings()
    }
    return [_said(dict(row), replies, pairs) for row in found]


def _said(row: Mapping[str, Any], replies: Mapping[str, str], pairs: Mapping[str, tuple[str, str]]) -> Said:
    target = row["payload"]["turn_ids"][0] if row["kind"] == "ranking" else row["target"]
    reply, other = replies.get(target, ""), ""
    if row["kind"] == "comparison":
        first, second = pairs.get(target, ("", ""))
        reply, other = (second, first) if row["value"] == "B" else (first, second)
    kept = ("sequence", "kind", "value", "criterion", "rater", "created_at", "guidelines", "payload")
    return Said(
        **{name: row[name] for name in kept},
        versions=tuple(row["versions"].split()),
        reply=reply,
        other=other,
    )


def _rater_row(rater: str, counts: Counter[tuple[str, str]]) -> RaterRow:
    compared = {value: number for (kind, value), number in counts.items() if kind == "comparison"}
    return RaterRow(
        rater=rater,
        judgements=counts.total(),
        comparisons=sum(compared.values()),
        ties=compared.get("tie", 0) + compared.get("both_bad", 0),
        up=counts["rating", "1"],
        down=counts["rating", "-1"],
    )


def day_number(iso: str) -> int | None:
    """The day of an ISO date, counted from 1970-01-01; None for what is no date."""
    try:
        return (date.fromisoformat(iso) - date(1970, 1, 1)).days
    except ValueError:
        return None
