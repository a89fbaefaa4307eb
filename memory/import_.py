"""``python -m memory.import_``: judgements that were made elsewhere, into the ledger.

Takes TRL's preference and unpaired preference, HH-RLHF's transcripts, rankings (ours, Open Assistant's), Chatbot
Arena's votes, Open WebUI's feedback export and our own ``events``; which of them a file is follows from its first row
unless ``--format`` says it. A bad row is reported with its line and the reason and stops no other; with ``--strict``
the whole file is looked through first and nothing is taken if one row is bad. Reading a file twice adds nothing.
Files of any length are read row by row. This module writes nothing itself: `memory.intake` does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic_settings import CliPositionalArg
from tqdm import tqdm

from memory import foreign_rows, foreign_votes
from memory.database import Database, StorageError, open_database
from memory.entries import BadRow, Entry, Origin, rater_named
from memory.event_rows import record_of
from memory.intake import Record, take_in
from memory.row_files import Line, UnreadableFile, read_rows, size_of
from memory.settings import StorageSettings, load_settings

Format = Literal[
    "preference", "unpaired", "hh-rlhf", "ranking", "open-assistant", "arena", "open-webui", "events"
]
Row = Mapping[str, Any]
Reader = Callable[[Row, Origin], Iterator[Entry]]
READERS: dict[str, Reader] = {
    "preference": foreign_rows.preference,
    "unpaired": foreign_rows.unpaired,
    "hh-rlhf": foreign_rows.hh_rlhf,
    "ranking": foreign_rows.ranked,
    "open-assistant": foreign_rows.open_assistant,
    "arena": foreign_votes.arena,
    "open-webui": foreign_votes.open_webui,
}
_AT_ONCE = 500
_SHOWN = 100
_RATER = ("rater", "annotator", "judge", "user_id", "session_id", "evaluation_session_id")
_DIALOGUE = ("dialogue", "dialogue_id", "conversation_id", "message_tree_id")
_TIME = ("created_at", "tstamp", "timestamp")


class ImportSettings(StorageSettings):
    """Settings of an import."""

    file: CliPositionalArg[Path]
    """The file to read: .jsonl, .json (both also with .gz) or .parquet."""

    format: Format | Literal["auto"] = "auto"
    """What its rows are; auto: what the first row looks like."""

    rater: str = "somebody"
    """Whose judgements these are where a row does not say. Remembered as a hash."""

    strict: bool = False
    """Take nothing if one row is bad."""


@dataclass
class Imported:
    """What came of an import: rows `read`, records `added` and `known` already, and (line, reason) of bad rows."""

    format: str = ""
    read: int = 0
    added: int = 0
    known: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


class UnknownFormat(ValueError):
    """The rows are of no kind that is known here."""


def format_of(row: Row) -> Format:
    """What a row looks like. Raises `UnknownFormat`."""
    has = row.keys()
    replies = (row.get("chosen"), row.get("rejected"))
    transcripts = all(isinstance(reply, str) and reply.startswith("\n\nHuman:") for reply in replies)
    signs: list[tuple[Format, bool]] = [
        ("events", "record" in has),
        ("open-webui", {"data", "meta"} <= has),
        ("arena", {"conversation_a", "conversation_b"} <= has or {"response_a", "response_b"} <= has),
        ("arena", {"states", "models"} <= has),
        ("open-assistant", "message_tree_id" in has),
        ("hh-rlhf", transcripts and not row.get("prompt")),
        ("preference", {"chosen", "rejected"} <= has),
        ("ranking", "completions" in has),
        ("unpaired", "label" in has and bool({"completion", "messages"} & has)),
    ]
    for format, looks_so in signs:
        if looks_so:
            return format
    raise UnknownFormat(
        f"A row with {', '.join(map(repr, sorted(has))) or 'nothing in it'} is none of the formats known here. "
        f"Say which it is with --format: {', '.join([*READERS, 'events'])}."
    )


def read_records(
    path: Path, format: str, *, rater: str, now: float, outcome: Imported, quiet: bool = False
) -> Iterator[tuple[int, Record]]:
    """The records of the file with their line; what is bad goes to `outcome`. Raises `UnreadableFile`,
    `UnknownFormat` and `OSError`."""
    bar: dict[str, Any] = {
        "unit": "B",
        "unit_scale": True,
        "file": sys.stderr,
        "disable": True if quiet else None,
    }
    with tqdm(total=size_of(path), **bar) as progress:
        for line in read_rows(path):
            outcome.read += 1
            progress.update(line.position - progress.n)
            if line.row is not None and format == "auto":
                format = format_of(line.row)
            outcome.format = format
            try:
                yield from _records_of(line, format, rater=rater, now=now)
            except BadRow as error:
                outcome.problems.append((line.number, str(error)))


def _records_of(line: Line, format: str, *, rater: str, now: float) -> Iterator[tuple[int, Record]]:
    if line.row is None:
        raise BadRow(line.problem)
    if format == "events":
        yield line.number, record_of(line.row)
        return
    origin = Origin(
        rater=rater_named(_first_text(line.row, _RATER) or rater),
        now=now,
        dialogue=_first_text(line.row, _DIALOGUE),
        created_at=_time_of(line.row),
    )
    try:
        entries = list(READERS[format](line.row, origin))  # all of a row or nothing of it
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        raise BadRow(f"the row is not what {format} looks like ({type(error).__name__}: {error})") from error
    yield from ((line.number, entry) for entry in entries)


def import_file(
    database: Database,
    path: Path,
    *,
    format: str = "auto",
    rater: str = "somebody",
    strict: bool = False,
    clock: Callable[[], float] = time.time,
    quiet: bool = False,
) -> Imported:
    """Take the file into the ledger, some hundred rows at a time. Raises what `read_records` raises, and
    `StorageError`; what was taken in before stays."""
    now = clock()
    if strict:
        looked = Imported()
        for _ in read_records(path, format, rater=rater, now=now, outcome=looked, quiet=quiet):
            pass
        if looked.problems:
            return looked
    outcome, held = Imported(), list[tuple[int, Record]]()
    for record in read_records(path, format, rater=rater, now=now, outcome=outcome, quiet=quiet):
        held.append(record)
        if len(held) >= _AT_ONCE:
            _take(database, held, outcome)
            held = []
    _take(database, held, outcome)
    return outcome


def _take(database: Database, held: list[tuple[int, Record]], outcome: Imported) -> None:
    if held:
        taken = take_in(database, held)
        outcome.added += taken.added
        outcome.known += taken.known
        outcome.problems += taken.problems


def _first_text(row: Row, names: tuple[str, ...]) -> str:
    return next((value for value in map(row.get, names) if isinstance(value, str) and value), "")


def _time_of(row: Row) -> float | None:
    """When the judgement was made, in Unix seconds; milliseconds and nanoseconds are told by their size."""
    value = next((value for value in map(row.get, _TIME) if isinstance(value, int | float)), None)
    if value is None or isinstance(value, bool) or not 0 < value < 1e19:
        return None
    while value > 1e11:
        value /= 1_000
    return float(value)


def main(flags: list[str] | None = None) -> int:
    """Run as a command: 0 when rows were taken or known already, 3 when a row was bad under ``--strict`` or all were,
    1 when the file or the ledger could not be used."""
    settings = load_settings(ImportSettings, sys.argv[1:] if flags is None else flags)
    try:
        database = open_database(settings.resolved_database_url)
        try:
            done = import_file(
                database,
                settings.file,
                format=settings.format,
                rater=settings.rater,
                strict=settings.strict,
            )
        finally:
            database.close()
    except (StorageError, UnreadableFile, UnknownFormat, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for number, reason in done.problems[:_SHOWN]:
        print(f"{settings.file}:{number}: {reason}", file=sys.stderr)
    if len(done.problems) > _SHOWN:
        print(f"... and {len(done.problems) - _SHOWN:,} more bad rows", file=sys.stderr)
    print(
        f"{settings.file}: {done.read:,} rows of {done.format}; {done.added:,} records added, {done.known:,} known "
        f"already, {len(done.problems):,} bad."
    )
    refused = done.problems and (settings.strict or not done.added + done.known)
    return 3 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
