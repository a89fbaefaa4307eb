"""What the benchmark on human judgements is trained on and examined by: read rightly, and kept apart."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from benchmarks.human import table
from benchmarks.human_data import SETS, UnreadableData, read_set, transcript
from benchmarks.ngram_baseline import baseline_leads, pairs_of
from memory.schema import Message
from training.orderings import Ordering

REAL = Path(os.environ.get("THUMBPRINT_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def write(folder, name, rows):
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def said(role, text):
    return [{"role": role, "content": text}]


def pair(number, dialogue, prompt=None):
    asked = said("user", prompt or f"Question {number}?")
    better, worse = said("assistant", f"Good {number}."), said("assistant", f"Bad {number}.")
    return {"prompt": asked, "chosen": better, "rejected": worse, "dialogue": dialogue}


def thumb(number, dialogue, label):
    return {
        "prompt": said("user", f"Thing {number}?"),
        "completion": said("assistant", f"Reply {number}."),
        "label": label,
        "dialogue": dialogue,
    }


@pytest.fixture
def folder(tmp_path):
    write(
        tmp_path,
        "accentor_pairs",
        [*(pair(n, f"t{n}") for n in range(20)), pair(90, "t90", "SAME  question?")],
    )
    write(tmp_path, "accentor_pairs_dev", [pair(91, "d1", "Same question?"), pair(92, "d2")])
    write(tmp_path, "accentor_thumbs", [thumb(n, "d2" if n == 3 else f"t{n}", n % 2 == 0) for n in range(6)])
    return tmp_path


def test_what_shares_a_dialogue_or_a_prompt_with_the_test_part_is_not_trained_on(folder):
    found = read_set(folder, "accentor")
    assert [item.replies for item in found.test] == [("Good 91.", "Bad 91."), ("Good 92.", "Bad 92.")]
    assert len(found.train) == 20
    assert "t90" not in {item.conversation_id for item in found.train}
    assert [item.liked for item in found.thumbs] == [True, False, True, True, False]


def test_settings_are_chosen_without_the_test_part(folder):
    found = read_set(folder, "accentor")
    inside = found.validating(0.4)
    assert 0 < len(inside.test) < 20
    assert {item.conversation_id for item in inside.test} | {
        item.conversation_id for item in inside.train
    } == {item.conversation_id for item in found.train}
    aside = {item.conversation_id for item in inside.test}
    assert not aside & {item.conversation_id for item in (*inside.train, *inside.thumbs)}
    assert not set(found.test) & {*inside.train, *inside.thumbs, *inside.test}


def test_a_transcript_is_taken_apart_where_speakers_begin():
    text = "\n\nHuman: Hi: a\n\nHuman said so\n\nAssistant: Yes.\n\nHuman:\n\nAssistant: No."
    assert transcript(text) == (
        Message("user", "Hi: a\n\nHuman said so"),
        Message("assistant", "Yes."),
        Message("user", ""),
        Message("assistant", "No."),
    )


def test_the_halves_of_hh_are_each_others_test(tmp_path):
    rows = [
        {
            "chosen": f"\n\nHuman: Q{n}\n\nAssistant: Yes {n}.",
            "rejected": f"\n\nHuman: Q{n if n else 'x'}\n\nAssistant: No {n}.",
        }
        for n in range(30)
    ]
    write(tmp_path, "hh_harmless", rows)
    first, second = read_set(tmp_path, "hh-first"), read_set(tmp_path, "hh-second")
    assert first.train == second.test
    assert first.test == second.train
    assert len(first.train) + len(first.test) == 29
    assert min(len(first.train), len(first.test)) > 5
    assert first.train[0].prompt[0].role == "user"


def test_the_rankings_of_a_tree_have_the_best_first_and_what_was_said_before(tmp_path):
    def node(role, text, rank=None, replies=()):
        return {"message_id": text, "role": role, "text": text, "rank": rank, "replies": list(replies)}

    deeper = node("prompter", "And?", replies=[node("assistant", "worse", 1), node("assistant", "better", 0)])
    replies = [
        node("assistant", "second", 1),
        node("assistant", "third", 2),
        node("assistant", "first", 0, [deeper]),
    ]
    trees = [
        {"message_tree_id": f"tree{n}", "prompt": node("prompter", "What?", None, replies)} for n in range(9)
    ]
    write(tmp_path, "oasst_trees", trees)
    found = read_set(tmp_path, "oasst-first")
    # Every tree asks the same, so whatever is examined is not trained on.
    assert not found.train
    by_prompt = {item.prompt: item.replies for item in found.test}
    assert by_prompt == {
        (Message("user", "What?"),): ("first", "second", "third"),
        (Message("user", "What?"), Message("assistant", "first"), Message("user", "And?")): (
            "better",
            "worse",
        ),
    }


def test_what_cannot_be_read_says_where(tmp_path):
    with pytest.raises(UnreadableData, match="accentor_pairs"):
        read_set(tmp_path, "accentor")
    with pytest.raises(UnreadableData, match="no set 'other'"):
        read_set(tmp_path, "other")


def test_a_ranking_counts_with_all_its_pairs_and_a_tie_with_none():
    ranking = Ordering((), ("a", "b", "c"), (True,) * 3, "", "", "")
    tie = Ordering((), ("d", "e"), (True,) * 2, "", "", "", tied=True)
    assert pairs_of([ranking, tie]) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_the_baseline_learns_words_from_pairs_and_thumbs():
    pytest.importorskip("sklearn", reason="pip install -r benchmarks/requirements.txt")

    def one(number, *replies, liked=None):
        return Ordering((), replies, (True,) * len(replies), "", str(number), "", liked=liked)

    pairs = [one(n, f"thanks friend {n}", f"whatever {n}") for n in range(8)]
    thumbs = [one(n, "splendid" if n % 2 else "dreadful", liked=bool(n % 2)) for n in range(20)]
    test = [one(0, "thanks", "whatever"), one(1, "splendid", "dreadful")]
    by_pairs = baseline_leads(pairs, test)
    assert by_pairs[0] > 0
    assert by_pairs[1] == 0
    assert all(lead > 0 for lead in baseline_leads([*pairs, *thumbs], test))


def test_an_empty_table_has_its_head():
    assert table([]).count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no human judgements in {REAL} (THUMBPRINT_TEST_DATA)")
def test_the_real_sets_are_whole_and_apart():
    found = {name: read_set(REAL, name) for name in SETS}
    sizes = {name: (len(pairs_of(each.train)), len(pairs_of(each.test))) for name, each in found.items()}
    assert sizes["accentor"] == (10_000, 2_012)
    assert sum(sizes["hh-first"]) == 1_176
    assert sizes["hh-first"] == sizes["hh-second"][::-1]
    for each in found.values():
        aside = {item.conversation_id for item in each.test}
        assert not aside & {item.conversation_id for item in (*each.train, *each.thumbs)}
