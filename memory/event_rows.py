"""Our own ledger as rows and back: every reply, every question and every event, with nothing lost.

One flat row for each, all with the same columns (empty where they do not apply), so that any reader of tables takes
the file. A row's `record` says what it is: ``turn``, ``comparison`` or ``event``; turns come before what speaks of
them. `ordinal` counts the events of one key within one tick of the clock, which is what makes reading the same file
twice add nothing. Text is escaped as in the database. This module reads no file; the rows go in by `memory.intake`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from memory.entries import BadRow
from memory.events import KINDS
from memory.schema import LABELS, Comparison, Message, Turn
from memory.tables import comparisons, escape, events, turns, unescape

COLUMNS: dict[str, Any] = {
    "record": str,
    "id": str,
    "conversation_id": str,
    "created_at": float,
    "prompt": [{"role": str, "content": str}],
    "completion": str,
    "policy_version": str,
    "fingerprint": str,
    "sampling": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "finish": str,
    "turn_A": str,
    "turn_B": str,
    "completion_A": str,
    "completion_B": str,
    "version_A": str,
    "version_B": str,
    "shown_first": str,
    "category": str,
    "kind": str,
    "target": str,
    "criterion": str,
    "rater": str,
    "payload": str,
    "guidelines": str,
    "ordinal": int,
}
CATEGORIES = ("judgement", "retraction", "occurrence")
_EMPTY: dict[Any, Any] = {str: "", int: 0, float: 0.0}
_FINISHES = ("stop", "length", "cancelled", "error")


@dataclass(frozen=True)
class Event:
    """One event of the log. `ordinal` counts those of the same key and time from 0; None: not known, and the event is
    the same as any earlier one that says the same."""

    category: str
    kind: str
    target: str
    criterion: str
    rater: str
    created_at: float
    payload: Mapping[str, Any]
    guidelines: str = ""
    ordinal: int | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the event is about, and whose: (target, kind, criterion, rater)."""
        return self.target, self.kind, self.criterion, self.rater


def count_rows(connection: Connection) -> int:
    """How many rows `export_rows` gives."""
    counts = (
        connection.scalar(select(func.count()).select_from(table)) for table in (turns, comparisons, events)
    )
    return sum(count or 0 for count in counts)


def export_rows(connection: Connection) -> Iterator[dict[str, Any]]:
    """Every row, as far as the log reaches now; read as they are asked for."""
    until = connection.scalar(select(func.max(events.c.sequence))) or 0
    streaming = connection.execution_options(yield_per=1_000)
    for row in streaming.execute(select(turns).order_by(turns.c.sequence)).mappings():
        yield _row("turn", row, sampling=json.dumps(row["sampling"], ensure_ascii=False))
    for row in streaming.execute(select(comparisons).order_by(comparisons.c.sequence)).mappings():
        renamed = {name: row[name.lower()] for name in COLUMNS if name[-2:] in ("_A", "_B")}
        yield _row("comparison", row, **renamed)
    same = [events.c[name] for name in ("category", "target", "kind", "criterion", "rater", "created_at")]
    ordinal = func.row_number().over(partition_by=same, order_by=events.c.sequence) - 1
    query = select(events, ordinal.label("ordinal")).where(events.c.sequence <= until)
    for row in streaming.execute(query.order_by(events.c.sequence)).mappings():
        yield _row("event", row, payload=json.dumps(row["payload"], ensure_ascii=False))


def _row(record: str, row: RowMapping, **changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"record": record}
    for name, kind in COLUMNS.items():
        value = changed.get(name, row.get(name))
        if name == "prompt":
            made[name] = [{"role": role, "content": escape(content)} for role, content in value or ()]
        elif name != "record":
            made[name] = _EMPTY[kind] if value is None else escape(value) if kind is str else value
    return made


def record_of(row: Mapping[str, Any]) -> Turn | Comparison | Event:
    """What a row says. Raises `BadRow`."""
    for name, kind in COLUMNS.items():
        value = row.get(name)
        wanted = list if isinstance(kind, list) else (int, float) if kind is float else kind
        if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise BadRow(
                f"{name} is a {type(value).__name__}; expected {getattr(kind, '__name__', 'a list')}"
            )
    makers: dict[str, Callable[[Mapping[str, Any]], Turn | Comparison | Event]]
    makers = {"turn": _turn, "comparison": _comparison, "event": _event}
    if row.get("record") not in makers:
        raise BadRow(f"record is {row.get('record')!r}; expected one of {', '.join(makers)}")
    try:
        return makers[row["record"]]({name: _plain(value) for name, value in row.items()})
    except KeyError as error:
        raise BadRow(f"there is no {error.args[0]!r}") from error
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise BadRow(f"the row cannot be understood: {error}") from error
    except ValueError as error:
        raise BadRow(str(error)) from error


def _plain(value: Any) -> Any:
    return unescape(value) if isinstance(value, str) else value


def _prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(item["role"], unescape(item["content"])) for item in row["prompt"])


def _turn(row: Mapping[str, Any]) -> Turn:
    if row["finish"] not in _FINISHES:
        raise BadRow(f"finish is {row['finish']!r}; expected one of {', '.join(_FINISHES)}")
    names = Turn.__dataclass_fields__.keys() - {"prompt", "sampling"}
    plain = {name: row[name] for name in names}
    return Turn(**plain, prompt=_prompt(row), sampling=json.loads(row["sampling"]))


def _comparison(row: Mapping[str, Any]) -> Comparison:
    if row["shown_first"] not in ("A", "B"):
        raise BadRow(f"shown_first is {row['shown_first']!r}; expected A or B")
    names = Comparison.__dataclass_fields__.keys() - {"prompt"}
    return Comparison(**{name: row[name] for name in names}, prompt=_prompt(row))


def _event(row: Mapping[str, Any]) -> Event:
    names = Event.__dataclass_fields__.keys() - {"payload"}
    event = Event(**{name: row[name] for name in names}, payload=json.loads(row["payload"]))
    if event.category not in CATEGORIES:
        raise BadRow(f"category is {event.category!r}; expected one of {', '.join(CATEGORIES)}")
    if event.category != "occurrence" and event.kind not in KINDS.values():
        raise BadRow(f"kind is {event.kind!r}; expected one of {', '.join(KINDS.values())}")
    if event.category == "judgement" and event.kind == "comparison" and event.payload["label"] not in LABELS:
        raise BadRow(f"label is {event.payload['label']!r}; expected one of {', '.join(LABELS)}")
    return event
