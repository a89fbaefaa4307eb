"""Datasets as feedback: every format that can be read, every row that cannot, and which rows belong together."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from memory.schema import Message
from training.dataset_files import DatasetUnreadable, number_rows, read_rows
from training.dataset_rows import BadRow, Demonstration, Pair, Question, Thumb, read_row
from training.sources import LEARNED, WrongColumns, example_of, read_dataset
from training.views import preference_view, unpaired_rows

ASKED = (Message("user", "How long does an egg take?"),)
PROMPT = [{"role": "user", "content": "How long does an egg take?"}]
GOOD, BAD = "Nine minutes.", "No idea."
PAIR, THUMB, SHOWN = Pair(ASKED, GOOD, BAD), Thumb(ASKED, GOOD, True), Demonstration(ASKED, GOOD)


def reply(text):
    return [{"role": "assistant", "content": text}]


def gpt(text):
    return {"from": "gpt", "value": text}


TRANSCRIPT = "\n\nHuman: How long does an egg take?\n\nAssistant:"
ROWS = {
    "pair, conversational": ({"prompt": PROMPT, "chosen": reply(GOOD), "rejected": reply(BAD)}, PAIR),
    "pair, standard": ({"prompt": PROMPT[0]["content"], "chosen": GOOD, "rejected": BAD}, PAIR),
    "pair, implicit": ({"chosen": [*PROMPT, *reply(GOOD)], "rejected": [*PROMPT, *reply(BAD)]}, PAIR),
    "pair, prompt in both places": (
        {
            "prompt": PROMPT[0]["content"],
            "chosen": [*PROMPT, *reply(GOOD)],
            "rejected": [*PROMPT, *reply(BAD)],
        },
        PAIR,
    ),
    "pair, transcripts": ({"chosen": f"{TRANSCRIPT} {GOOD}", "rejected": f"{TRANSCRIPT} {BAD}"}, PAIR),
    "pair, transcript as prompt": ({"prompt": TRANSCRIPT, "chosen": f" {GOOD}", "rejected": f" {BAD}"}, PAIR),
    "pair, ShareGPT": (
        {
            "conversations": [{"from": "human", "value": "How long does an egg take?"}],
            "chosen": gpt(GOOD),
            "rejected": gpt(BAD),
        },
        PAIR,
    ),
    "pair, Alpaca": (
        {
            "instruction": "How long does",
            "input": "an egg take?",
            "output": GOOD,
            "chosen": GOOD,
            "rejected": BAD,
        },
        Pair((Message("user", "How long does\n\nan egg take?"),), GOOD, BAD),
    ),
    "pair, JSON in cells": (
        {"prompt": json.dumps(PROMPT), "chosen": json.dumps(reply(GOOD)), "rejected": json.dumps(reply(BAD))},
        PAIR,
    ),
    "pair, with a system message": (
        {"system": "Be brief.", "prompt": PROMPT, "chosen": GOOD, "rejected": BAD},
        Pair((Message("system", "Be brief."), *ASKED), GOOD, BAD),
    ),
    "pair, texts that begin alike": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        Pair((Message("user", "The sky is"),), "blue.", "green."),
    ),
    "thumb": ({"prompt": PROMPT, "completion": reply(GOOD), "label": True}, THUMB),
    "thumb, standard": ({"prompt": PROMPT[0]["content"], "completion": GOOD, "label": "true"}, THUMB),
    "thumb, down": ({"prompt": PROMPT, "completion": GOOD, "label": 0}, Thumb(ASKED, GOOD, False)),
    "thumb, messages": ({"messages": [*PROMPT, *reply(GOOD)], "label": True}, THUMB),
    "demonstration": ({"messages": [*PROMPT, *reply(GOOD)]}, SHOWN),
    "demonstration, prompt and completion": ({"prompt": PROMPT, "completion": reply(GOOD)}, SHOWN),
    "demonstration, Alpaca": (
        {"instruction": "How long does an egg take?", "input": "", "output": GOOD},
        SHOWN,
    ),
    "demonstration, transcript": ({"text": f"{TRANSCRIPT} {GOOD}"}, SHOWN),
    "demonstration, parts": (
        {"messages": [*PROMPT, {"role": "assistant", "content": [{"type": "text", "text": GOOD}]}]},
        SHOWN,
    ),
    "prompt": ({"prompt": PROMPT}, Question(ASKED)),
    "prompt, standard": ({"prompt": "How long does an egg take?"}, Question(ASKED)),
}


@pytest.mark.parametrize(("columns", "said"), ROWS.values(), ids=ROWS.keys())
def test_every_format_says_the_same(columns, said):
    assert read_row(columns) == [said]
    assert read_row({**columns, "other": None, "score": 3}) == [said], "further columns do not matter"


def test_a_conversation_shows_each_of_its_replies():
    messages = [*PROMPT, *reply(GOOD), {"role": "user", "content": "And two?"}, *reply("The same.")]
    first, second = read_row({"messages": messages})
    assert first == SHOWN
    assert second == Demonstration(
        (*ASKED, Message("assistant", GOOD), Message("user", "And two?")), "The same."
    )


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"question_id": 7, "score": 2}, "columns of no known format: question_id, score"),
        ({"prompt": PROMPT, "chosen": True, "rejected": BAD}, "chosen is a boolean, not text or messages"),
        ({"prompt": PROMPT, "chosen": 3.5, "rejected": BAD}, "chosen is a number"),
        ({"prompt": PROMPT, "chosen": " \n", "rejected": BAD}, "chosen is blank"),
        ({"prompt": " ", "chosen": GOOD, "rejected": BAD}, "the prompt is blank"),
        ({"prompt": PROMPT, "chosen": GOOD, "rejected": f" {GOOD}\n"}, "chosen and rejected are the same"),
        ({"prompt": PROMPT, "chosen": "caf\udce9", "rejected": BAD}, "text that is not UTF-8"),
        ({"prompt": [*PROMPT, *reply("Hm.")], "chosen": GOOD, "rejected": BAD}, "does not end with the user"),
        ({"prompt": PROMPT, "chosen": [*reply(GOOD), *reply(GOOD)], "rejected": BAD}, "chosen is 2 messages"),
        ({"prompt": PROMPT, "chosen": PROMPT, "rejected": BAD}, "chosen is a message by the user"),
        (
            {"chosen": f"{TRANSCRIPT} {GOOD}", "rejected": f"\n\nHuman: Hello?\n\nAssistant: {BAD}"},
            "part before their last reply",
        ),
        ({"prompt": PROMPT, "chosen": GOOD, "rejected": None}, "chosen without rejected"),
        ({"prompt": PROMPT, "rejected": GOOD}, "rejected without chosen"),
        ({"prompt": PROMPT, "completion": GOOD, "label": ""}, "a blank label"),
        ({"prompt": PROMPT, "completion": GOOD, "label": "maybe"}, "a label that is 'maybe'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "a message by 'tool'"),
        ({"messages": [*PROMPT, {"role": "assistant", "content": None}]}, "content is nothing, not text"),
        ({"messages": [*PROMPT, {"role": "assistant", "content": [{"image": "x"}]}]}, "other than text"),
        ({"messages": ["hello"]}, "holds a str where a message should be"),
        ({"text": "Once upon a time."}, "no transcript of a chat"),
    ],
)
def test_a_row_that_says_nothing_says_why(columns, reason):
    with pytest.raises(BadRow, match=reason):
        read_row(columns)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def pairs(count, **more):
    return [
        {"prompt": f"What about thing {n}?", "chosen": f"Fine {n}.", "rejected": f"Bad {n}.", **more}
        for n in range(count)
    ]


def test_every_kind_of_file_holds_the_same(tmp_path):
    import pyarrow
    from pyarrow.parquet import write_table

    rows = pairs(3)
    write_lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "c.json").write_text(json.dumps({"data": rows}), encoding="utf-8-sig")
    write_lines(tmp_path / "lines.json", rows)
    table = "prompt,chosen,rejected\n" + "".join(
        ",".join(f'"{v}"' for v in row.values()) + "\n" for row in rows
    )
    (tmp_path / "d.csv").write_text(table, encoding="utf-8")
    (tmp_path / "e.tsv").write_text(table.replace(",", "\t"), encoding="utf-16")
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "g.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert [dict(row.columns) for row in read_rows(str(path))] == rows, path.name


def test_lines_that_cannot_be_read_are_told_by_their_number(tmp_path):
    path = tmp_path / "mixed.jsonl"
    good = json.dumps(pairs(1)[0]).encode()
    latin = '{"prompt": "x", "chosen": "café", "rejected": "y"}'.encode("latin-1")
    path.write_bytes(b"\n".join([good, b"{oops", b"[1, 2]", latin, b"", good, b""]))
    source = read_dataset([str(path)], method="dpo")
    assert source.counts == {"pair": 1}
    assert dict(source.left_out) == {
        "not JSON": ("mixed.jsonl:2",),
        "not a JSON object": ("mixed.jsonl:3",),
        "text that is not UTF-8": ("mixed.jsonl:4",),
        "the same as a row before": ("mixed.jsonl:6",),
    }
    assert source.explain()[0] == "Read 1 pair."
    assert "Left out 1: not JSON (mixed.jsonl:2)." in source.explain()


def test_a_table_with_a_short_line_is_told_by_its_number(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('prompt,completion,label\n"Two\nlines?",Yes.,true\nHello?,Hi.\nHow?,So.,false\n')
    source = read_dataset([str(path)], method="kto")
    assert source.counts == {"rated replies": 2}
    assert dict(source.left_out) == {"another number of cells than the header": ("table.csv:4",)}


def test_of_a_folder_the_part_that_was_asked_for_is_read(tmp_path):
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "train-00000-of-00001.jsonl", pairs(4))
    write_lines(tmp_path / "data" / "test-00000-of-00001.jsonl", pairs(2))
    (tmp_path / "README.md").write_text("Hello.")
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert read_dataset([str(tmp_path)], method="dpo").counts == {"pairs": 4}
    assert read_dataset([str(tmp_path)], method="dpo", split="test").counts == {"pairs": 2}
    with pytest.raises(DatasetUnreadable, match=r"no file for the split 'validation'.*test-00000"):
        read_dataset([str(tmp_path)], method="dpo", split="validation")
    assert read_dataset([str(tmp_path / "data" / "test-00000-of-00001.jsonl")], method="dpo").counts


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.docx", b"x", "is no dataset file"),
        ("rows.parquet", b"PAR1 not really", "no whole Parquet file"),
        ("rows.jsonl.gz", b"\x1f\x8b cut off", "cannot be read"),
        ("rows.jsonl", b"\n", "holds no rows"),
    ],
)
def test_a_file_that_is_none_says_so(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetUnreadable, match=said):
        read_dataset([str(tmp_path / name)], method="dpo")


def test_a_name_that_leads_nowhere_says_what_to_do(tmp_path):
    with pytest.raises(DatasetUnreadable, match="no file or folder"):
        read_dataset([str(tmp_path / "nothing.jsonl")], method="dpo")
    with pytest.raises(DatasetUnreadable, match="cannot be had from the Hub"):
        read_dataset(["nobody/there-is-no-such-dataset"], method="dpo")


def test_rows_of_the_hubs_library_are_read_alike():
    from datasets import Dataset

    rows = [row.columns for row in number_rows(Dataset.from_list(pairs(2)), "owner/name")]
    assert [read_row(row)[0].chosen for row in rows] == ["Fine 0.", "Fine 1."]


def test_wrong_columns_are_told_with_a_right_row(tmp_path):
    thumbs = write_lines(tmp_path / "t.jsonl", [{"prompt": "Hi?", "completion": "Hello.", "label": True}])
    with pytest.raises(WrongColumns) as caught:
        read_dataset([thumbs], method="dpo")
    said = str(caught.value)
    for words in (
        "rated replies (prompt, completion, label)",
        "kto",
        "completion, label, prompt",
        "dpo expects pairs",
    ):
        assert words in said
    assert read_row(json.loads(said.splitlines()[-1])), "the row shown is right"
    other = write_lines(tmp_path / "o.jsonl", [{"review": "Nice.", "stars": 5}] * 2)
    with pytest.raises(
        WrongColumns, match=r"None of 2 rows can be used; 2 of them: columns of no known format"
    ):
        read_dataset([other], method="kto")


def test_prompts_are_enough_for_methods_that_ask_them(tmp_path):
    path = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "Hi?", "response_1": "a", "response_2": "b"}])
    assert read_dataset([path], method="grpo").counts == {"prompt without a reply": 1}
    with pytest.raises(
        WrongColumns, match=r"These rows are prompts \(prompt\). grpo, ppo, rloo can learn from them"
    ):
        read_dataset([path], method="dpo")


@pytest.mark.parametrize("method", LEARNED)
def test_the_row_that_is_shown_as_right_is_right(tmp_path, method):
    path = write_lines(tmp_path / "rows.jsonl", [json.loads(example_of(method))])
    assert sum(read_dataset([path], method=method).counts.values()) == 1


def test_what_is_said_becomes_feedback(tmp_path):
    rows = [*pairs(1), {"prompt": "Hi?", "completion": "Hello.", "label": False, "annotator": "ann"}]
    rows += [{"messages": [*PROMPT, *reply(GOOD)]}, {"prompt": "And now?"}]
    feedback = read_dataset([write_lines(tmp_path / "rows.jsonl", rows)], method="auto").feedback
    (compared,) = feedback.comparisons
    assert (compared.chosen, compared.rejected, compared.rater) == ("Fine 0.", "Bad 0.", "dataset")
    down, up = feedback.ratings
    assert (down.turn_id, down.value, down.rater) == ("rows.jsonl:2", -1, "ann")
    assert (up.turn_id, up.value) == ("rows.jsonl:3", 1)
    assert [row["label"] for row in unpaired_rows(feedback.ratings, feedback.turns)] == [False, True]
    view = preference_view(feedback, share=0.2)
    asked = {prompt[-1].content for prompt in (*view.train_prompts, *view.heldout_prompts)}
    assert asked == {"What about thing 0?", "Hi?", PROMPT[0]["content"], "And now?"}


def test_one_dialogue_stands_on_one_side_under_whatever_names(tmp_path):
    """Three turns of each of forty dialogues: half by a name, a quarter under two, a quarter under none."""
    rows = []
    for n in range(40):
        spoken = [{"role": "user", "content": f"I want thing {n}."}]
        for turn in range(3):
            name = {0: f"{n}", 1: f"{n}", 2: f"{n}-{turn // 2}", 3: None}[n % 4]
            row = {"prompt": list(spoken), "chosen": f"Yes {n} {turn}.", "rejected": f"No {n} {turn}."}
            rows.append({**row, "dialogue": name} if name else row)
            spoken += [*reply(f"Yes {n} {turn}."), {"role": "user", "content": f"And {turn}?"}]
    feedback = read_dataset([write_lines(tmp_path / "rows.jsonl", rows)], method="dpo").feedback
    view = preference_view(feedback, share=0.3)
    assert view.heldout
    assert view.train

    def dialogues(part):
        return {row.prompt[0].content for row in part if len(row.prompt) > 1}

    assert not dialogues(view.train) & dialogues(view.heldout)


def test_a_prompt_is_never_on_both_sides(tmp_path):
    rows = [
        {"prompt": f"Thing {n % 30}?", "chosen": f"Fine {n}.", "rejected": "Bad.", "dialogue": n}
        for n in range(60)
    ]
    feedback = read_dataset([write_lines(tmp_path / "rows.jsonl", rows)], method="dpo").feedback
    view = preference_view(feedback, share=0.3)
    assert not {row.prompt for row in view.train} & {row.prompt for row in view.heldout}
    assert view.heldout


def test_a_share_of_the_rows_is_drawn_with_the_seed(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", pairs(50))

    def drawn(seed):
        read = read_dataset([path], method="dpo", rows=10, seed=seed)
        return [each.chosen for each in read.feedback.comparisons]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(drawn(1)) == 10


PUBLIC = Path(os.environ.get("THUMBPRINT_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.mark.parametrize(
    ("name", "method", "counts", "left_out"),
    [
        ("hh_harmless", "dpo", {"pairs": 1176}, 5),
        ("polite_rude", "reward_model", {"pairs": 1094}, 6),
        ("accentor_pairs_dev", "dpo", {"pairs": 2012}, 0),
        ("llamafactory_dpo_en_demo", "dpo", {"pairs": 295}, 5),
        ("llamafactory_kto_en_demo", "kto", {"rated replies": 300}, 0),
    ],
)
def test_public_datasets_are_read(name, method, counts, left_out):
    path = PUBLIC / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not here; set THUMBPRINT_TEST_DATA to the folder that holds it")
    source = read_dataset([str(path)], method=method)
    assert source.counts == counts
    assert sum(len(places) for places in source.left_out.values()) == left_out


def test_the_rows_in_the_documentation_are_right():
    """Each block of rows of docs/training.md holds what its heading says."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0].split("\n")[1:-1] for block in page.split("```json")[1:]]
    kinds = [{type(said) for line in block for said in read_row(json.loads(line))} for block in blocks]
    assert kinds == [{Pair}, {Thumb}, {Demonstration}, {Question}]
