"""The ledger: everything a person said about the replies, kept for ever, in the order in which it was said.

Append-only. A changed mind is a later event with the same key and a retraction is an event too; the reading
half (`memory.judgements`) shows what stands. What a person merely *did* is an occurrence and never a
judgement. Turns and comparisons are written once. This module does not weigh, filter or pair anything for
training.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, select
from sqlalchemy.exc import IntegrityError

from memory.database import put_latest
from memory.events import (
    KINDS,
    comparison_values,
    criterion_of,
    kind_of,
    payload_of,
    target_of,
    turn_values,
    value_of,
)
from memory.judgements import (
    DAY_SECONDS,
    LedgerReader,
    UnknownComparison,
    UnknownTurn,
    find_comparison,
    find_turn,
    unknown_turn,
)
from memory.schema import (
    Comparison,
    Correction,
    Critique,
    Judgement,
    LabeledComparison,
    Occurrence,
    Ranking,
    Rating,
    Score,
    Turn,
)
from memory.tables import comparisons, events, judgements, turns

__all__ = ["AlreadyRecorded", "Ledger", "UnknownComparison", "UnknownTurn"]

_KEY = ("target", "rater", "kind", "criterion")
_APPENDING = events.insert().returning(events.c.sequence)
_ORIGIN = select(turns.c.conversation_id, turns.c.policy_version).where(turns.c.id == bindparam("turn_id"))


class AlreadyRecorded(ValueError):
    """Another turn or comparison with this id is in the ledger, and what was said is never changed."""


class Ledger(LedgerReader):
    """The append-only ledger of one database. Every writer raises `StorageError` when the database cannot
    take it.

    Once a writer has returned, what it wrote survives the death of this process.
    """

    def record_turn(self, turn: Turn) -> None:
        """Keep a reply. The same turn again changes nothing; another one under its id raises
        `AlreadyRecorded`."""
        try:
            with self._database.write() as connection:
                connection.execute(turns.insert().values(**turn_values(turn)))
        except IntegrityError:
            if self.turn(turn.id) != turn:
                raise AlreadyRecorded(
                    f"Turn {turn.id!r} is already recorded and differs from this one."
                ) from None

    def record_comparison(self, comparison: Comparison) -> None:
        """Keep a question. The same question again changes nothing; another one under its id raises
        `AlreadyRecorded`."""
        try:
            with self._database.write() as connection:
                connection.execute(comparisons.insert().values(**comparison_values(comparison)))
        except IntegrityError:
            if self.comparison(comparison.id) != comparison:
                raise AlreadyRecorded(
                    f"Comparison {comparison.id!r} is already recorded and differs from this one."
                ) from None

    def record(self, judgement: Judgement, *, guidelines: str = "") -> None:
        """Keep a judgement; it replaces the rater's earlier one with the same key. `guidelines` names the version
        of the guidelines that the rater saw.

        An answer to a question that is not recorded yet brings its question along; an answer to the question
        with its letters exchanged is kept in the letters of the recorded one. Raises `UnknownTurn` for a
        reply that was never recorded, `ValueError` for a ranking of replies to different prompts, and
        `AlreadyRecorded` for an answer to another question than the one recorded.
        """
        with self._database.write() as connection:
            append_judgement(connection, judgement, guidelines=guidelines)

    def retract(self, kind: str, target: str, rater: str, *, criterion: str | None = None) -> None:
        """Take back the rater's standing judgement of `kind` about `target` (of scores: those on every criterion, or
        the one on `criterion`).

        The events stay; nobody counts them any more. Nothing happens where nothing stands. `target` is the
        turn's id, the comparison's id, or `memory.events.ranking_target(turn_ids)`.
        """
        if kind not in KINDS.values():
            raise ValueError(f"Judgement kind is {kind!r}; expected one of {', '.join(KINDS.values())}.")
        now = self._database.clock()
        query = select(judgements).where(
            judgements.c.kind == kind,
            judgements.c.target == target,
            judgements.c.rater == rater,
        )
        with self._database.write() as connection:
            standing = [row for row in connection.execute(query).mappings() if row["standing"]]
            for row in standing:
                if criterion is not None and row["criterion"] != criterion:
                    continue
                append_retraction(connection, row, created_at=now)

    def note(self, occurrence: Occurrence) -> None:
        """Keep something that happened. It is nobody's judgement and never counts as one."""
        key = {
            "kind": occurrence.kind,
            "target": occurrence.target,
            "criterion": "",
            "rater": occurrence.actor,
        }
        with self._database.write() as connection:
            _append(
                connection, "occurrence", key, created_at=occurrence.created_at, payload=occurrence.detail
            )


def append_judgement(connection: Connection, judgement: Judgement, *, guidelines: str = "") -> None:
    """Write a judgement inside a transaction of the caller's; for the rest as `Ledger.record`."""
    if isinstance(judgement, LabeledComparison):
        judgement = _in_recorded_letters(connection, judgement)
        asked = judgement.comparison
        conversation_id, versions = asked.conversation_id, {asked.version_A, asked.version_B}
    else:
        conversation_id, versions = _origin(connection, judgement)
    key = {
        "kind": kind_of(judgement),
        "target": target_of(judgement),
        "criterion": criterion_of(judgement),
        "rater": judgement.rater,
    }
    sequence = _append(
        connection,
        "judgement",
        key,
        created_at=judgement.created_at,
        payload=payload_of(judgement),
        guidelines=guidelines,
    )
    current = {
        **key,
        "sequence": sequence,
        "standing": True,
        "value": value_of(judgement),
        "day": int(judgement.created_at // DAY_SECONDS),
        "conversation_id": conversation_id,
        "versions": f" {' '.join(sorted(versions))} ",
    }
    put_latest(connection, judgements, current, key=_KEY, order="sequence")


def append_retraction(connection: Connection, row: RowMapping, *, created_at: float) -> None:
    """Take back the judgement of this row of `judgements`, inside a transaction of the caller's."""
    key = {name: row[name] for name in _KEY}
    sequence = _append(connection, "retraction", key, created_at=created_at, payload={})
    gone = {**row, "sequence": sequence, "standing": False}
    put_latest(connection, judgements, gone, key=_KEY, order="sequence")


def _append(
    connection: Connection,
    category: str,
    key: dict[str, str],
    *,
    created_at: float,
    payload: dict[str, Any],
    guidelines: str = "",
) -> int:
    """Write one event and give its number."""
    event = {
        **key,
        "category": category,
        "created_at": created_at,
        "payload": payload,
        "guidelines": guidelines,
    }
    number: int | None = connection.scalar(_APPENDING, event)
    if number is None:
        raise RuntimeError("The database gave no number for an event that it took.")
    return number


def _in_recorded_letters(connection: Connection, labeled: LabeledComparison) -> LabeledComparison:
    asked = labeled.comparison
    recorded = find_comparison(connection, asked.id)
    if recorded is None:
        connection.execute(comparisons.insert().values(**comparison_values(asked)))
        return labeled
    if recorded == asked:
        return labeled
    if recorded == asked.swap():
        return labeled.swap()
    raise AlreadyRecorded(
        f"The answer is to a comparison {asked.id!r} that differs from the recorded one. "
        "Read the question with Ledger.comparison and answer that."
    )


def _origin(
    connection: Connection, judgement: Rating | Ranking | Score | Critique | Correction
) -> tuple[str, set[str]]:
    """The conversation of the judged replies and the versions that wrote them. The replies must exist; a ranking's
    must answer one prompt."""
    if not isinstance(judgement, Ranking):
        row = connection.execute(_ORIGIN, {"turn_id": judgement.turn_id}).first()
        if row is None:
            raise unknown_turn(judgement.turn_id)
        return row.conversation_id, {row.policy_version}
    ranked = [find_turn(connection, turn_id) for turn_id in judgement.turn_ids]
    if any(turn.prompt != ranked[0].prompt for turn in ranked):
        raise ValueError("The ranked replies answer different prompts. Rank only replies to the same prompt.")
    return ranked[0].conversation_id, {turn.policy_version for turn in ranked}
