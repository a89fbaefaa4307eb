"""``python -m memory.export``: what the ledger holds, as a file that trainers and tables take as it is.

Formats: ``preference`` and ``unpaired`` (TRL's, conversational), ``ranking`` (replies best first), ``sft`` (TRL's
prompt-completion, of corrections) and ``events`` (everything, to be read back by `memory.import_`). The file's suffix
says how it is written: ``.jsonl``, ``.jsonl.gz``, ``.json`` or ``.parquet``. Ledgers of any length are written row by
row; the file appears when it is whole. Which replies may make a row is `memory.views`' to say; this module trains
nothing and splits nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from tqdm import tqdm

from memory import event_rows
from memory.database import Database, StorageError, open_database
from memory.ledger import Ledger
from memory.row_files import RowWriter, kind_of_file
from memory.settings import StorageSettings, load_settings
from memory.views import (
    Feedback,
    feedback_in_parts,
    preference_rows,
    sft_rows,
    to_messages,
    unpaired_rows,
)

Format = Literal["preference", "unpaired", "ranking", "sft", "events"]
Row = dict[str, Any]
_MESSAGES = [{"role": str, "content": str}]
_ABOUT = {"conversation_id": str, "rater": str, "feedback_id": str}


class ExportSettings(StorageSettings):
    """Settings of an export."""

    format: Format = "preference"
    """What the rows are: preference, unpaired, ranking, sft or events."""

    out: Path = Field()
    """The file to write; its suffix (.jsonl, .jsonl.gz, .json, .parquet) says how."""


@dataclass(frozen=True)
class Shape:
    """A format made of judgements: its columns, the kinds it is made of, and the rows of a part of the ledger.

    `rows` counts what makes no row in the counter that it is given.
    """

    columns: dict[str, Any]
    kinds: tuple[str, ...]
    rows: Callable[[Feedback, Counter[str]], Iterator[Row]]


def _preferences(feedback: Feedback, dropped: Counter[str]) -> Iterator[Row]:
    rows, left_out = preference_rows(feedback)
    dropped.update(left_out)
    for row in rows:
        yield row.to_trl() | {
            "conversation_id": row.conversation_id,
            "rater": row.rater,
            "feedback_id": row.feedback_id,
        }


def _thumbs(feedback: Feedback, dropped: Counter[str]) -> Iterator[Row]:
    for rating in feedback.ratings:
        rows = unpaired_rows([rating], feedback.turns)
        dropped["unfinished"] += not rows
        about = _about(feedback, rating.turn_id, rating.rater, f"rating:{rating.turn_id}") if rows else {}
        yield from (row | about for row in rows)


def _corrections(feedback: Feedback, dropped: Counter[str]) -> Iterator[Row]:
    for correction in feedback.corrections:
        rows = sft_rows([correction], feedback.turns)
        dropped["empty"] += not rows
        turn_id = correction.turn_id
        about = _about(feedback, turn_id, correction.rater, f"correction:{turn_id}") if rows else {}
        yield from (row | about for row in rows)


def _rankings(feedback: Feedback, dropped: Counter[str]) -> Iterator[Row]:
    for ranking in feedback.rankings:
        ranked = [feedback.turns[name] for name in ranking.turn_ids if name in feedback.turns]
        whole = [
            turn for turn in ranked if turn.finish not in ("cancelled", "error") and turn.completion.strip()
        ]
        if len(whole) < 2:
            dropped["unfinished"] += 1
            continue
        yield {
            "prompt": to_messages(whole[0].prompt),
            "completions": [turn.completion for turn in whole],
        } | _about(feedback, whole[0].id, ranking.rater, f"ranking:{'>'.join(ranking.turn_ids)}")


def _about(feedback: Feedback, turn_id: str, rater: str, feedback_id: str) -> Row:
    conversation = feedback.turns[turn_id].conversation_id
    return {"conversation_id": conversation, "rater": rater, "feedback_id": feedback_id}


SHAPES: dict[str, Shape] = {
    "preference": Shape(
        {"prompt": _MESSAGES, "chosen": _MESSAGES, "rejected": _MESSAGES, **_ABOUT},
        ("comparison", "ranking", "correction"),
        _preferences,
    ),
    "unpaired": Shape(
        {"prompt": _MESSAGES, "completion": _MESSAGES, "label": bool, **_ABOUT}, ("rating",), _thumbs
    ),
    "ranking": Shape({"prompt": _MESSAGES, "completions": [str], **_ABOUT}, ("ranking",), _rankings),
    "sft": Shape({"prompt": _MESSAGES, "completion": _MESSAGES, **_ABOUT}, ("correction",), _corrections),
}


def export(database: Database, format: Format, out: Path, *, quiet: bool = False) -> tuple[int, Counter[str]]:
    """Write the ledger to `out`; returns the number of rows, and why judgements made none. Raises `StorageError`,
    `OSError` and `ValueError` (for the name of the file).
    """
    kind_of_file(out)
    dropped: Counter[str] = Counter()
    written = 0
    columns = event_rows.COLUMNS if format == "events" else SHAPES[format].columns
    with RowWriter(out, columns) as writer:
        for row in _rows(database, format, dropped, quiet=quiet):
            writer.write(row)
            written += 1
    return written, +dropped


def _rows(database: Database, format: Format, dropped: Counter[str], *, quiet: bool) -> Iterator[Row]:
    bar: dict[str, Any] = {"unit": " judgements", "file": sys.stderr, "disable": True if quiet else None}
    if format == "events":
        with database.read() as connection:
            rows = event_rows.export_rows(connection)
            yield from tqdm(rows, **bar | {"total": event_rows.count_rows(connection), "unit": " rows"})
        return
    ledger, shape = Ledger(database), SHAPES[format]
    with tqdm(total=ledger.count_standing(shape.kinds), **bar) as progress:
        for part in feedback_in_parts(ledger, shape.kinds):
            yield from shape.rows(part, dropped)
            progress.update(
                len(part.comparisons) + len(part.rankings) + len(part.corrections) + len(part.ratings)
            )


def main(flags: list[str] | None = None) -> int:
    """Run as a command: 0 when the file is written, 1 when it could not be."""
    settings = load_settings(ExportSettings, sys.argv[1:] if flags is None else flags)
    try:
        database = open_database(settings.resolved_database_url)
        try:
            written, dropped = export(database, settings.format, settings.out)
        finally:
            database.close()
    except (StorageError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    left_out = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in dropped.most_common())
    print(
        f"{settings.out}: {written:,} rows of {settings.format}.{f' Made no row: {left_out}.' if left_out else ''}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
