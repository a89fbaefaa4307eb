"""Taking what others recorded into the ledger, many rows in one transaction, and nothing twice.

A reply or question whose id is known is the same one; an event is known when the log holds one of the same key that
says the same (for our own events: at the same time, and as often). So reading a file again adds nothing, and reading
one that was broken off goes on. What contradicts the ledger is a problem of its row and stops no other. This module
reads no file and understands no format: it is given `memory.entries` and the records of `memory.event_rows`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, select

from memory.database import Database, put_latest
from memory.entries import Entry
from memory.event_rows import Event
from memory.events import (
    comparison_from,
    comparison_values,
    criterion_of,
    judgement_from,
    kind_of,
    payload_of,
    target_of,
    turn_from,
    turn_values,
    value_of,
)
from memory.judgements import DAY_SECONDS
from memory.schema import Comparison, Judgement, LabeledComparison, Turn
from memory.tables import comparisons, events, judgements, turns

Record = Entry | Turn | Comparison | Event
_KEY = ("target", "rater", "kind", "criterion")
_IDS_PER_QUERY = 500


@dataclass
class Taken:
    """How many records were `added`, how many were `known` already, and what was wrong, by the number of the row."""

    added: int = 0
    known: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Said:
    """Where something that is judged belongs: its conversation and the versions that wrote it."""

    conversation_id: str
    versions: frozenset[str]


def take_in(database: Database, records: Sequence[tuple[int, Record]]) -> Taken:
    """Add the records, each with the number of its row, in one transaction. Raises `StorageError`."""
    taken = Taken()
    with database.write() as connection:
        _add_things(connection, turns, _turns_of(records), taken)
        _add_things(connection, comparisons, _comparisons_of(records), taken)
        _add_events(connection, _events_of(records), taken)
    return taken


def _turns_of(records: Iterable[tuple[int, Record]]) -> list[tuple[int, Turn, bool]]:
    """(row, turn, whether it must equal one that is known): ids of foreign turns follow from their content."""
    return [
        (number, turn, isinstance(record, Turn))
        for number, record in records
        for turn in (record.turns if isinstance(record, Entry) else [record])
        if isinstance(turn, Turn)
    ]


def _comparisons_of(records: Iterable[tuple[int, Record]]) -> list[tuple[int, Comparison, bool]]:
    found: list[tuple[int, Comparison, bool]] = []
    for number, record in records:
        if isinstance(record, Comparison):
            found.append((number, record, True))
        elif isinstance(record, Entry):
            answers = [said for said in record.judgements if isinstance(said, LabeledComparison)]
            found += [(number, answer.comparison, False) for answer in answers]
    return found


def _events_of(records: Iterable[tuple[int, Record]]) -> list[tuple[int, Event]]:
    found: list[tuple[int, Event]] = []
    for number, record in records:
        if isinstance(record, Event):
            found.append((number, record))
        elif isinstance(record, Entry):
            found += [(number, _event_of(said)) for said in record.judgements]
    return found


def _event_of(said: Judgement) -> Event:
    return Event(
        category="judgement",
        kind=kind_of(said),
        target=target_of(said),
        criterion=criterion_of(said),
        rater=said.rater,
        created_at=said.created_at,
        payload=payload_of(said),
    )


def _add_things(
    connection: Connection,
    table: Table,
    things: Sequence[tuple[int, Turn | Comparison, bool]],
    taken: Taken,
) -> None:
    """Insert the turns or comparisons that are not there yet."""
    known: dict[str, Turn | Comparison] = {}
    for row in _by_id(connection, table, [thing.id for _, thing, _ in things]):
        known[row["id"]] = turn_from(row) if table is turns else comparison_from(row)
    new: list[dict[str, Any]] = []
    for number, thing, exact in things:
        if thing.id in known:
            if exact and known[thing.id] != thing:
                what = "turn" if table is turns else "comparison"
                taken.problems.append((number, f"another {what} {thing.id!r} is in the ledger already"))
            else:
                taken.known += exact
            continue
        known[thing.id] = thing
        new.append(turn_values(thing) if isinstance(thing, Turn) else comparison_values(thing))
        taken.added += exact
    if new:
        connection.execute(table.insert(), new)


def _add_events(connection: Connection, said: Sequence[tuple[int, Event]], taken: Taken) -> None:
    """Append the events that are not there yet and let the latest of each key stand."""
    log = _log_of(connection, {event.target for _, event in said})
    about = _origins(connection, [event for _, event in said])
    new: list[tuple[Event, dict[str, Any] | None]] = []
    for number, event in said:
        earlier = log[event.key]
        if _is_known(event, earlier):
            taken.known += 1
            continue
        try:
            current = _current(event, about)
        except (KeyError, TypeError, ValueError) as error:
            taken.problems.append((number, _reason(event, error)))
            continue
        earlier.append((event.category, event.created_at, event.payload))
        new.append((event, current))
        taken.added += 1
    if not new:
        return
    insert = events.insert().returning(events.c.sequence, sort_by_parameter_order=True)
    rows = [{name: value for name, value in vars(event).items() if name != "ordinal"} for event, _ in new]
    standing: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for (event, current), sequence in zip(new, connection.scalars(insert, rows), strict=True):
        if current is not None:
            standing[event.key] = current | {"sequence": sequence}
    if standing:
        put_latest(connection, judgements, list(standing.values()), key=_KEY, order="sequence")


_Log = dict[tuple[str, str, str, str], list[tuple[str, float, Mapping[str, Any]]]]


def _log_of(connection: Connection, targets: Iterable[str]) -> _Log:
    """What was said before about each target, by key: (category, time, payload)."""
    log: _Log = defaultdict(list)
    wanted = sorted(targets)
    for start in range(0, len(wanted), _IDS_PER_QUERY):
        some = wanted[start : start + _IDS_PER_QUERY]
        for row in connection.execute(select(events).where(events.c.target.in_(some))).mappings():
            key = (row["target"], row["kind"], row["criterion"], row["rater"])
            log[key].append((row["category"], row["created_at"], row["payload"]))
    return log


def _is_known(event: Event, earlier: Sequence[tuple[str, float, Mapping[str, Any]]]) -> bool:
    if event.ordinal is None:
        return any((category, payload) == (event.category, event.payload) for category, _, payload in earlier)
    same = [at for category, at, _ in earlier if (category, at) == (event.category, event.created_at)]
    return len(same) > event.ordinal


def _origins(connection: Connection, said: Iterable[Event]) -> dict[str, _Said]:
    """Where what the events speak of belongs, by the id of the turn or comparison."""
    named: set[str] = set()
    for event in said:
        ranked = event.payload.get("turn_ids") if event.kind == "ranking" else None
        named.update(ranked if isinstance(ranked, list) else [event.target])
    found: dict[str, _Said] = {}
    for row in _by_id(connection, turns, named):
        found[row["id"]] = _Said(row["conversation_id"], frozenset({row["policy_version"]}))
    for row in _by_id(connection, comparisons, named):
        found[row["id"]] = _Said(row["conversation_id"], frozenset({row["version_a"], row["version_b"]}))
    return found


def _current(event: Event, about: Mapping[str, _Said]) -> dict[str, Any] | None:
    """The row of `judgements` that the event leaves behind; None for an occurrence. Raises what a wrong event
    raises."""
    if event.category == "occurrence":
        return None
    value, origins = "", [about[event.target]] if event.target in about else []
    if event.category == "judgement":
        if event.kind == "comparison":
            value = event.payload["label"]
        else:
            judgement = judgement_from(vars(event), None)
            if target_of(judgement) != event.target:
                raise ValueError("the ranking is of other replies than its target says")
            value = value_of(judgement)
        named = event.payload["turn_ids"] if event.kind == "ranking" else [event.target]
        origins = [about[name] for name in named]
    versions = sorted(frozenset[str]().union(*(origin.versions for origin in origins)))
    return {
        **dict(zip(("target", "kind", "criterion", "rater"), event.key, strict=True)),
        "standing": event.category == "judgement",
        "value": value,
        "day": int(event.created_at // DAY_SECONDS),
        "conversation_id": origins[0].conversation_id if origins else "",
        "versions": f" {' '.join(versions)} ",
    }


def _reason(event: Event, error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"the {event.kind} speaks of {error.args[0]!r}, which is not in the ledger or the file"
    return f"the {event.kind} cannot be understood: {error}"


def _by_id(connection: Connection, table: Table, ids: Iterable[str]) -> list[RowMapping]:
    wanted = sorted(set(ids))
    found: list[RowMapping] = []
    for start in range(0, len(wanted), _IDS_PER_QUERY):
        some = wanted[start : start + _IDS_PER_QUERY]
        found += connection.execute(select(table).where(table.c.id.in_(some))).mappings().all()
    return found
