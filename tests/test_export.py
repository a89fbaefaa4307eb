"""Writing the ledger out: nothing is lost on the way back, and trainers take the files as they are."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.database import Database, open_database
from memory.export import SHAPES, export, main
from memory.import_ import import_file
from memory.ledger import Ledger
from memory.schema import (
    Comparison,
    Correction,
    Critique,
    LabeledComparison,
    Message,
    Occurrence,
    Ranking,
    Rating,
    Score,
    Turn,
)
from memory.views import feedback_in_parts

PROMPT = (Message("system", "Be brief."), Message("user", "Why?"))
NUMBERS = itertools.count()


def turn(name: str, completion: str, **changes: Any) -> Turn:
    made = {
        "id": name,
        "conversation_id": "k",
        "prompt": PROMPT,
        "completion": completion,
        "policy_version": "v0001",
        "fingerprint": "ab12cd34",
        "sampling": {"temperature": 0.1 + 0.2, "seed": None, "note\x00": "\ud800"},
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "finish": "stop",
        "created_at": 1.0,
    }
    return Turn(**{**made, **changes})


TURNS = (turn("t1", "So."), turn("t2", "No idea."), turn("t3", "NUL \x00 \ud83d \ufdd0 עברית 😀"))
ASKED = Comparison("c1", "k", PROMPT, "t1", "t2", "So.", "No idea.", "v0001", "base", "B", 2.0)


def fresh(folder: Path) -> Database:
    """An empty ledger. Copied, because making one takes longer than most of these tests."""
    blank, file = folder / "blank.db", folder / f"{next(NUMBERS)}.db"
    if not blank.exists():
        open_database(f"sqlite:///{blank}").close()
    shutil.copy(blank, file)
    return open_database(f"sqlite:///{file}", clock=lambda: 50.0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = fresh(tmp_path)
    for made in TURNS:
        Ledger(opened).record_turn(made)
    yield opened
    opened.close()


def views(database: Database) -> tuple[Any, ...]:
    ledger = Ledger(database)
    return (
        ledger.ratings(),
        ledger.comparisons(),
        ledger.rankings(),
        ledger.scores(),
        ledger.critiques(),
        ledger.corrections(),
        ledger.occurrences(limit=1_000),
        ledger.counts(),
        ledger.judgements_by_day(100),
        [ledger.judgements_of("k", rater) for rater in ("me", "you")],
        [ledger.turn(made.id) for made in TURNS],
        ledger.last_sequence(),
    )


raters, ticks = st.sampled_from(["me", "you"]), st.sampled_from([1.0, 2.0])
targets = st.sampled_from(["t1", "t2", "t3"])
texts = st.text(max_size=12)
reasons = st.lists(texts, max_size=2).map(tuple)
labels = st.sampled_from(["A", "B", "tie", "both_bad"])
asked = st.sampled_from([ASKED, ASKED.swap()])
said: dict[str, Any] = {"rater": raters, "created_at": ticks}
judged = st.one_of(
    st.builds(Rating, targets, st.sampled_from([1, -1]), reasons=reasons, comment=texts, **said),
    st.builds(LabeledComparison, asked, labels, seconds=st.floats(0, 99), early=st.booleans(), **said),
    st.builds(Ranking, st.permutations(["t1", "t2", "t3"]).map(tuple), **said),
    st.builds(Score, targets, st.sampled_from(["clear", "honest"]), st.integers(1, 5), **said),
    st.builds(Critique, targets, texts, **said),
    st.builds(Correction, targets, texts, **said),
    st.builds(Occurrence, st.sampled_from(["retry", "stop"]), targets, raters, ticks),
)
taken_back = st.tuples(
    st.sampled_from(["rating", "comparison", "score", "critique", "correction"]),
    targets | st.just("c1"),
    raters,
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    history=st.lists(judged | taken_back, max_size=20), suffix=st.sampled_from(["jsonl", "json", "parquet"])
)
def test_any_history_is_the_same_after_export_and_import(
    tmp_path_factory: pytest.TempPathFactory, history: list[Any], suffix: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    here, there = fresh(folder), fresh(folder)
    ledger = Ledger(here)
    for made in TURNS:
        ledger.record_turn(made)
    for number, step in enumerate(history):
        if isinstance(step, tuple):
            ledger.retract(*step)
        elif isinstance(step, Occurrence):
            ledger.note(step)
        else:
            ledger.record(step, guidelines=f"g{number % 3}")
    file = folder / f"events{next(NUMBERS)}.{suffix}"
    written, _ = export(here, "events", file, quiet=True)
    done = import_file(there, file, quiet=True)
    assert (done.added, done.known, done.problems) == (written, 0, [])
    assert views(there) == views(here)
    again = import_file(there, file, quiet=True)
    assert (again.added, again.known, again.problems) == (0, written, [])
    assert views(there) == views(here)
    here.close()
    there.close()


def test_guidelines_travel_along(database: Database, tmp_path: Path) -> None:
    Ledger(database).record(Rating("t1", 1, "me", 1.0), guidelines="g7")
    export(database, "events", tmp_path / "events.jsonl", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").open(encoding="utf-8")]
    assert [row["guidelines"] for row in rows] == ["", "", "", "g7"]


def test_an_import_that_was_broken_off_goes_on(database: Database, tmp_path: Path) -> None:
    ledger = Ledger(database)
    for value in (1, -1, 1):
        ledger.record(Rating("t1", value, "me", 1.0))  # type: ignore[arg-type]
    export(database, "events", tmp_path / "events.jsonl", quiet=True)
    lines = (tmp_path / "events.jsonl").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "half.jsonl").write_text("".join(lines[:5]), encoding="utf-8")
    there = fresh(tmp_path)
    assert import_file(there, tmp_path / "half.jsonl", quiet=True).added == 5
    assert Ledger(there).ratings()[0].value == -1
    assert import_file(there, tmp_path / "events.jsonl", quiet=True).added == 1
    assert views(there) == views(database)
    there.close()


def test_bad_events_are_reported_and_the_others_go_in(database: Database, tmp_path: Path) -> None:
    Ledger(database).record(Rating("t1", 1, "me", 1.0))
    export(database, "events", tmp_path / "events.jsonl", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").open(encoding="utf-8")]
    event = rows[3]
    bad = [
        rows[0] | {"completion": "forged"},
        event | {"target": "nowhere"},
        event | {"target": "t2", "payload": '{"value": 9, "reasons": [], "comment": ""}'},
        event | {"target": "t2", "payload": "{"},
        event | {"category": "guess"},
        event | {"kind": "comparison", "target": "c9", "payload": '{"label": "left"}'},
        event | {"rater": 7},
        {"record": "turn", "id": "t9"},
        {"record": "vote"},
    ]
    file = tmp_path / "bad.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, *bad]), encoding="utf-8")
    there = fresh(tmp_path)
    done = import_file(there, file, quiet=True)
    assert done.added == 4
    reasons = dict(done.problems)
    assert sorted(reasons) == list(range(5, 14))
    for number, words in enumerate(
        [
            "another turn 't1'",
            "'nowhere', which is not in the ledger",
            "value is 9",
            "cannot be understood",
            "'guess'",
            "label is 'left'",
            "rater is a int",
            "there is no",
            "'vote'",
        ],
        5,
    ):
        assert words in reasons[number]
    assert views(there) == views(database)
    there.close()


def fill(database: Database) -> None:
    ledger = Ledger(database)
    ledger.record_turn(turn("stopped", "Because o", finish="cancelled"))
    ledger.record(LabeledComparison(ASKED, "A", "me", 1.0, 3.0))
    ledger.record(LabeledComparison(ASKED, "tie", "you", 1.0, 4.0))
    ledger.record(Ranking(("t3", "t1", "t2"), "me", 5.0))
    ledger.record(Rating("t1", 1, "me", 6.0))
    ledger.record(Rating("t2", -1, "me", 7.0))
    ledger.record(Rating("stopped", -1, "me", 8.0))
    ledger.record(Correction("t2", "Because it is.", "me", 9.0))


def test_rows_are_trls(database: Database, tmp_path: Path) -> None:
    fill(database)
    counts = {}
    for format in SHAPES:
        counts[format] = export(database, format, tmp_path / f"{format}.jsonl", quiet=True)  # type: ignore[arg-type]
    assert counts == {
        "preference": (5, {"tie": 1}),
        "unpaired": (2, {"unfinished": 1}),
        "ranking": (1, {}),
        "sft": (1, {}),
    }
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    first = {name: json.loads((tmp_path / f"{name}.jsonl").read_text().splitlines()[0]) for name in SHAPES}
    assert first["preference"] == {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "So."}],
        "rejected": [{"role": "assistant", "content": "No idea."}],
        "conversation_id": "k",
        "rater": "me",
        "feedback_id": "comparison:c1",
    }
    assert (first["unpaired"]["completion"][0]["content"], first["unpaired"]["label"]) == ("So.", True)
    assert first["sft"]["completion"] == [{"role": "assistant", "content": "Because it is."}]
    assert len(first["ranking"]["completions"]) == 3


@pytest.mark.parametrize("format", ["preference", "unpaired", "ranking"])
def test_training_rows_come_back_as_the_same_judgements(
    database: Database, tmp_path: Path, format: str
) -> None:
    fill(database)
    export(database, format, tmp_path / "rows.parquet", quiet=True)  # type: ignore[arg-type]
    there = fresh(tmp_path)
    assert import_file(there, tmp_path / "rows.parquet", quiet=True).format == format
    export(there, format, tmp_path / "again.parquet", quiet=True)  # type: ignore[arg-type]
    from pyarrow import parquet

    ids = ["conversation_id", "rater", "feedback_id"]
    tables = [
        parquet.read_table(tmp_path / name).drop_columns(ids) for name in ("rows.parquet", "again.parquet")
    ]
    written, again = (list(map(str, table.to_pylist())) for table in tables)
    assert again == list(dict.fromkeys(written)), "who said the same of two replies twice says it once"
    there.close()


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_datasets_loads_every_format(database: Database, tmp_path: Path, suffix: str) -> None:
    from datasets import load_dataset

    fill(database)
    for format in (*SHAPES, "events"):
        file = tmp_path / f"{format}.{suffix}"
        written, _ = export(database, format, file, quiet=True)  # type: ignore[arg-type]
        builder = "json" if suffix == "jsonl" else "parquet"
        loaded = load_dataset(builder, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == written
    assert {"record", "payload", "ordinal"} <= set(loaded.column_names)


def test_parts_of_a_long_ledger_miss_nothing(database: Database) -> None:
    ledger = Ledger(database)
    for number in range(25):
        ledger.record_turn(turn(f"n{number}", f"Reply {number}"))
        ledger.record(Rating(f"n{number}", 1, "me", 100.0 - number))
    parts = list(feedback_in_parts(ledger, ["rating", "critique"], size=10))
    assert [len(part.ratings) for part in parts] == [10, 10, 5]
    assert [rating.turn_id for part in parts for rating in part.ratings] == [f"n{n}" for n in range(25)]
    assert all(rating.turn_id in part.turns for part in parts for rating in part.ratings)


def test_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--data-dir", str(tmp_path / "data")]
    opened = open_database(f"sqlite:///{tmp_path / 'data' / 'thumbprint.db'}")
    for made in TURNS:
        Ledger(opened).record_turn(made)
    fill(opened)
    opened.close()
    assert main(["--out", str(tmp_path / "pairs.jsonl"), *place]) == 0
    assert "5 rows of preference. Made no row: 1 tie." in capsys.readouterr().out
    assert main(["--format", "sft", "--out", str(tmp_path / "rows.csv"), *place]) == 1
    assert "expected a name that ends in .jsonl" in capsys.readouterr().err
