"""Reading what others recorded: each format row by row, its traps, bad rows, and the same file twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memory.database import Database, open_database
from memory.entries import rater_named
from memory.import_ import UnknownFormat, format_of, import_file, main
from memory.ledger import Ledger
from memory.schema import Message
from memory.views import preference_rows, read_feedback

REAL = Path(os.environ.get("THUMBPRINT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
GOOD, BAD = [{"role": "assistant", "content": "So."}], [{"role": "assistant", "content": "No idea."}]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'ledger.db'}", clock=lambda: 1_000.0)
    yield opened
    opened.close()


def write(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    file = folder / name
    if name.endswith(".json"):
        file.write_text(json.dumps(rows))
    else:
        file.write_text("".join(row if isinstance(row, str) else f"{json.dumps(row)}\n" for row in rows))
    return file


def take(database: Database, folder: Path, rows: list[Any], **more: Any) -> Any:
    return import_file(database, write(folder, rows), clock=lambda: 2_000.0, quiet=True, **more)


def pairs(database: Database) -> list[tuple[str, str, str]]:
    rows, _ = preference_rows(read_feedback(Ledger(database)))
    return [(row.prompt[-1].content, row.chosen, row.rejected) for row in rows]


SPELLINGS = {
    "conversational": {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
    "texts": {"prompt": "Why?", "chosen": "So.", "rejected": "No idea."},
    "prompt inside": {"chosen": ASKED + GOOD, "rejected": ASKED + BAD},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Why?"}],
        "chosen": {"from": "gpt", "value": "So."},
        "rejected": {"from": "gpt", "value": "No idea."},
    },
    "alpaca": {"instruction": "Why?", "input": "", "output": "-", "chosen": "So.", "rejected": "No idea."},
    "hh": {
        "chosen": "\n\nHuman: Why?\n\nAssistant: So.",
        "rejected": "\n\nHuman: Why?\n\nAssistant: No idea.",
    },
    "arena": {
        "model_a": "m1",
        "model_b": "m2",
        "winner": "model_b",
        "judge": "arena_user_7",
        "conversation_a": [{"role": "user", "content": "Why?"}, *BAD],
        "conversation_b": [{"role": "user", "content": "Why?"}, *GOOD],
        "tstamp": 1_700_000_000.5,
    },
    "arena in strings": {
        "model_a": "m1",
        "model_b": "m2",
        "prompt": '["Why?"]',
        "response_a": '["So."]',
        "response_b": '["No idea."]',
        "winner_model_a": 1,
        "winner_model_b": 0,
        "winner_tie": 0,
    },
    "arena log": {
        "type": "leftvote",
        "tstamp": 1_700_000_000.5,
        "models": ["m1", "m2"],
        "states": [
            {"roles": ["USER", "ASSISTANT"], "offset": 0, "messages": [["USER", "Why?"], ["ASSISTANT", text]]}
            for text in ("So.", "No idea.")
        ],
        "ip": "1.2.3.4",
    },
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_preference_is_the_same_pair(
    database: Database, tmp_path: Path, spelling: str
) -> None:
    row = SPELLINGS[spelling]
    done = take(database, tmp_path, [row])
    assert (done.added, done.problems) == (1, [])
    assert pairs(database) == [("Why?", "So.", "No idea.")]
    again = take(database, tmp_path, [row])
    assert (again.added, again.known, again.problems) == (0, 1, [])
    assert Ledger(database).last_sequence() == 1
    (answer,) = Ledger(database).comparisons()
    if "arena" in spelling:
        assert {answer.comparison.version_A, answer.comparison.version_B} == {"imported:m1", "imported:m2"}
    if spelling == "arena":
        assert (answer.rater, answer.created_at) == (rater_named("arena_user_7"), 1_700_000_000.5)
        assert "arena_user_7" not in answer.rater


@pytest.mark.parametrize(("winner", "label"), [("tie", "tie"), ("tie (bothbad)", "both_bad")])
def test_an_arena_tie_stays_a_tie(database: Database, tmp_path: Path, winner: str, label: str) -> None:
    take(database, tmp_path, [SPELLINGS["arena"] | {"winner": winner}])
    assert [answer.label for answer in Ledger(database).comparisons()] == [label]


def test_what_arena_showed_left_is_remembered_as_shown_first(database: Database, tmp_path: Path) -> None:
    take(database, tmp_path, [SPELLINGS["arena"]])
    (answer,) = Ledger(database).comparisons()
    first = answer.comparison if answer.comparison.shown_first == "A" else answer.comparison.swap()
    assert first.completion_A == "No idea."


def test_thumbs_with_labels_of_every_kind(database: Database, tmp_path: Path) -> None:
    rows = [
        {"prompt": ASKED, "completion": GOOD, "label": True, "reason": "useful"},
        {"prompt": "What?", "completion": "That.", "label": 0},
        {"messages": [*ASKED, *BAD], "label": False},
        {"prompt": ASKED, "completion": GOOD, "label": "yes"},
        {"prompt": ASKED, "completion": GOOD, "label": None},
        {"prompt": ASKED, "completion": True, "label": True},
        {"prompt": ASKED, "completion": "  ", "label": True},
        {"messages": ASKED, "label": True},
        '{"prompt": "Why?", "completion": "So.", "lab',
    ]
    done = take(database, tmp_path, rows)
    assert [(rating.value, rating.reasons) for rating in Ledger(database).ratings()] == [
        (1, ("useful",)),
        (-1, ()),
        (-1, ()),
    ]
    assert [number for number, _ in done.problems] == [4, 5, 6, 7, 8, 9]
    reasons = [reason for _, reason in done.problems]
    for reason, expected in zip(
        reasons,
        ["'yes'; expected true", "no 'label'", "a reply is a bool", "a reply is empty", "the last message"],
        strict=False,
    ):
        assert expected in reason


def webui(**changes: Any) -> dict[str, Any]:
    messages = {
        "m1": {"id": "m1", "parentId": None, "role": "user", "content": "Why?"},
        "m2": {"id": "m2", "parentId": "m1", "role": "assistant", "content": "So.", "model": "llama"},
        "m3": {"id": "m3", "parentId": "m1", "role": "assistant", "content": "No idea.", "model": "qwen"},
    }
    row = {
        "id": "f1",
        "user_id": "u1",
        "type": "rating",
        "data": {
            "rating": 1,
            "model_id": "llama",
            "sibling_model_ids": ["qwen"],
            "reason": "accurate",
            "comment": "Quite right.",
            "tags": ["why"],
            "details": {"rating": 9},
        },
        "meta": {"arena": False, "chat_id": "c1", "message_id": "m2"},
        "snapshot": {"chat": {"id": "c1", "chat": {"history": {"messages": messages, "currentId": "m2"}}}},
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_001,
    }
    return row | changes


def test_open_webuis_export_gives_the_thumb_and_the_choice(database: Database, tmp_path: Path) -> None:
    file = write(tmp_path, [webui(), webui(snapshot=None), webui(data={"rating": None})], "feedback.json")
    done = import_file(database, file, quiet=True)
    assert (done.format, done.added) == ("open-webui", 2)
    assert [number for number, _ in done.problems] == [2, 3]
    (rating,) = Ledger(database).ratings()
    assert (rating.value, rating.reasons, rating.comment) == (1, ("accurate",), "Quite right.")
    assert (rating.rater, rating.created_at) == (rater_named("u1"), 1_700_000_000.0)
    assert Ledger(database).turn(rating.turn_id).policy_version == "imported:llama"
    assert pairs(database) == [("Why?", "So.", "No idea.")]


def test_rankings_and_trees(database: Database, tmp_path: Path) -> None:
    tree = {
        "message_tree_id": "t",
        "prompt": {
            "role": "prompter",
            "text": "Why?",
            "replies": [
                {"role": "assistant", "text": "No idea.", "rank": 2, "replies": []},
                {"role": "assistant", "text": "So.", "rank": 0, "replies": []},
                {"role": "assistant", "text": "Unranked", "rank": None},
            ],
        },
    }
    assert take(database, tmp_path, [tree]).added == 1
    row = {"prompt": [{"role": "user", "content": "What?"}], "completions": ["A", "B", "C"]}
    assert take(database, tmp_path, [row, row | {"completions": ["A"]}]).added == 1
    assert pairs(database) == [
        ("Why?", "So.", "No idea."),
        ("What?", "A", "B"),
        ("What?", "A", "C"),
        ("What?", "B", "C"),
    ]


def test_rows_that_make_no_pair_say_why(database: Database, tmp_path: Path) -> None:
    other = [{"role": "user", "content": "What?"}]
    rows = [
        {"prompt": ASKED, "chosen": GOOD, "rejected": GOOD},
        {"chosen": ASKED + GOOD, "rejected": other + BAD},
        {"prompt": ASKED, "chosen": GOOD, "rejected": False},
        {"prompt": ASKED, "chosen": GOOD + GOOD, "rejected": BAD},
        {"prompt": [{"role": "robot", "content": "x"}], "chosen": GOOD, "rejected": BAD},
        {"prompt": GOOD, "chosen": GOOD, "rejected": BAD},
        {"prompt": ASKED + GOOD, "chosen": GOOD, "rejected": BAD},
        {"prompt": 7, "chosen": GOOD, "rejected": BAD},
    ]
    done = take(database, tmp_path, rows)
    expected = [
        "both replies are the same",
        "differ before the last message",
        "a reply is a bool",
        "messages of assistant, assistant",
        "role is 'robot'",
        "no message of a user",
        "ends with a message of role 'assistant'",
        "got a int",
    ]
    assert [number for number, _ in done.problems] == list(range(1, 9))
    for (_, reason), words in zip(done.problems, expected, strict=True):
        assert words in reason
    assert Ledger(database).last_sequence() == 0


def test_the_same_pair_in_other_words_of_the_file_is_one_question(database: Database, tmp_path: Path) -> None:
    row = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD}
    swapped = {"prompt": ASKED, "chosen": BAD, "rejected": GOOD, "rater": "other"}
    take(database, tmp_path, [row, row, swapped])
    answers = Ledger(database).comparisons()
    assert len({answer.comparison.id for answer in answers}) == 1
    assert [answer.chosen for answer in answers] == ["So.", "No idea."]
    assert answers[0].rater == rater_named("somebody") != answers[1].rater


def test_rows_of_one_dialogue_are_one_conversation(database: Database, tmp_path: Path) -> None:
    opening = [{"role": "user", "content": "Hello"}]
    longer = [*opening, *GOOD, {"role": "user", "content": "And?"}]
    rows = [
        {"prompt": prompt, "completion": completion, "label": True, **named}
        for prompt, completion, named in [
            (opening, GOOD, {}),
            (longer, GOOD, {}),
            (opening, BAD, {"dialogue": "d1"}),
            (ASKED, BAD, {"dialogue": "d1"}),
        ]
    ]
    take(database, tmp_path, rows)
    ledger = Ledger(database)
    talks = [ledger.turn(rating.turn_id).conversation_id for rating in ledger.ratings()]
    assert len(set(talks)) == 2
    assert ledger.turn(ledger.ratings()[1].turn_id).prompt == (
        Message("user", "Hello"),
        Message("assistant", "So."),
        Message("user", "And?"),
    )


def test_taking_it_back_outlives_reading_the_file_again(database: Database, tmp_path: Path) -> None:
    row = {"prompt": ASKED, "completion": GOOD, "label": True}
    take(database, tmp_path, [row])
    ledger = Ledger(database)
    (rating,) = ledger.ratings()
    ledger.retract("rating", rating.turn_id, rating.rater)
    assert take(database, tmp_path, [row]).added == 0
    assert ledger.ratings() == []


def test_strict_takes_everything_or_nothing(database: Database, tmp_path: Path) -> None:
    rows = [{"prompt": ASKED, "completion": GOOD, "label": True}, {"prompt": ASKED, "label": True}]
    done = take(database, tmp_path, rows, strict=True)
    assert (done.added, [number for number, _ in done.problems]) == (0, [2])
    assert Ledger(database).counts().turns == 0
    assert take(database, tmp_path, rows[:1], strict=True).added == 1


def test_what_is_no_format_is_refused() -> None:
    with pytest.raises(UnknownFormat, match=r"'text' is none of the formats.*--format: preference"):
        format_of({"text": "Once upon a time"})


def test_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": ASKED, "completion": GOOD, "label": True}, {"prompt": ASKED, "completion": GOOD}]
    file = write(tmp_path, rows)
    place = ["--data-dir", str(tmp_path / "data")]
    assert main([str(file), *place]) == 0
    said = capsys.readouterr()
    assert "2 rows of unpaired; 1 records added, 0 known already, 1 bad." in said.out
    assert f"{file}:2: there is no 'label'" in said.err
    assert main([str(file), "--strict", *place]) == 3
    assert main([str(tmp_path / "nothing.jsonl"), *place]) == 1
    assert main([str(write(tmp_path, [{"text": "x"}], "other.jsonl")), *place]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format", "added", "bad"),
    [
        ("hh_harmless.jsonl.gz", "hh-rlhf", 1_176, 5),
        ("accentor_pairs_dev.jsonl.gz", "preference", 2_012, 0),
        ("polite_rude.jsonl.gz", "preference", 1_094, 6),
        ("llamafactory_dpo_en_demo.jsonl.gz", "preference", 295, 0),
        ("llamafactory_kto_en_demo.jsonl.gz", "unpaired", 300, 0),
        ("oasst_trees.jsonl.gz", "open-assistant", 212, 0),
    ],
)
def test_real_files_go_in_whole(database: Database, name: str, format: str, added: int, bad: int) -> None:
    if not (REAL / name).is_file():
        pytest.skip(f"{REAL / name} is not there: real data was NOT tested. Set THUMBPRINT_TEST_DATA.")
    done = import_file(database, REAL / name, quiet=True)
    assert (done.format, done.added, len(done.problems)) == (format, added, bad)
    assert import_file(database, REAL / name, quiet=True).added == 0
