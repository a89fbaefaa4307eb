"""The study of settings: its arithmetic, its file, the pairs that raters share, and one cell on a tiny real model."""

from __future__ import annotations

import json
import math

import pytest
from tiny import save_tiny_base

from benchmarks import rated
from benchmarks.cells import (
    Cell,
    Measured,
    all_cells,
    append_cell,
    comparison_table,
    difference,
    mean,
    read_cells,
    summary,
    table,
)
from benchmarks.rated import Pair, Reply, judged, talk
from benchmarks.raters import RATERS
from benchmarks.small_data import cell_settings, main
from memory.schema import Message
from memory.settings import load_settings
from training.base import load_base
from training.settings import TrainingSettings
from training.views import preference_rows

QUICK = ["--quantization", "none", "--context-tokens", "2048", "--max-new-tokens", "6", "--min-steps", "2"]
QUICK += ["--eval-prompts", "4", "--lora-rank", "2", "--min-comparisons", "4", "--min-heldout-pairs", "1"]
QUICK += ["--judged-pairs", "0", "--no-restrain", "--epochs", "0.1"]


def measured(tried="", rater="short", comparisons=100, seed=1, **changes):
    values = {
        "state": "published",
        "verdict": "Promoted.",
        "failed_checks": [],
        "ties": 3,
        "training_pairs": 60,
        "judged_pairs": 100,
        "before": 0.2,
        "after": 0.6,
        "trained": 0.5,
        "gain": 0.5,
        "facts_base": 0.9,
        "facts_change": -0.01,
        "kl": 2.0,
        "scale": 0.8,
        "win_rate": 0.9,
        "forgotten": 0.01,
        "seconds": 40.0,
        "phase_seconds": {"train": 20.0},
        "commit": "abc",
        "load": 1.0,
        "samples": ["Tea."],
        "common": "--prompts 200",
    }
    return Measured(tried, rater, comparisons, seed, **{**values, **changes})


def test_every_cell_comes_once_and_few_comparisons_come_first():
    cells = list(all_cells(["", "--epochs 2"], ["short", "lists"], [100, 25], [1, 2]))
    assert len(cells) == len(set(cells)) == 16
    assert [cell.comparisons for cell in cells] == [25] * 8 + [100] * 8
    assert cells[0] == Cell("", "short", 25, 1)
    assert cells[1] == Cell("--epochs 2", "short", 25, 1), "settings are compared as early as can be"


def test_a_mean_is_over_the_cells_that_have_the_figure():
    """0.2 and 0.6: mean 0.4, s = 0.2 * sqrt 2, standard error 0.2."""
    cells = [measured(gain=0.2), measured(gain=0.6, seed=2), measured(gain=None, seed=3)]
    assert mean(cells, "gain") == pytest.approx((0.4, 0.2))
    assert mean(cells[:1], "gain")[0] == 0.2
    assert math.isnan(mean(cells[:1], "gain")[1])
    assert all(map(math.isnan, mean(cells[2:], "gain")))


def test_a_difference_is_between_cells_of_the_same_rater_and_seed():
    """0.5 - 0.3 and 0.9 - 0.5: mean 0.3, standard error 0.1. The third has no counterpart."""
    defaults = [measured(gain=0.5, seed=2), measured(gain=0.3, seed=1)]
    others = [measured("--epochs 2", gain=gain, seed=seed) for seed, gain in ((1, 0.5), (2, 0.9), (3, 0.1))]
    assert difference(others, defaults, "gain") == pytest.approx((0.3, 0.1))


def test_the_table_says_what_was_served_and_what_was_trained():
    refused = measured(seed=2, state="rejected", gain=0.0, trained=0.7, facts_change=-0.09)
    lines = table([measured(), refused]).splitlines()
    assert (
        lines[2]
        == "| defaults | 100 | short | 0.25 (0.25) | 0.60 | -0.050 (0.040) | 2.00 | 0.80 | 1 of 2 | 40 |"
    )
    assert len(lines) == 3, "one rater needs no line for all raters"
    both = table([measured(), measured(rater="lists", gain=0.9)]).splitlines()
    assert [line.split(" | ")[2] for line in both[2:]] == ["lists", "short", "**all**"]


def test_settings_are_compared_with_the_defaults_cell_by_cell():
    cells = [measured(gain=0.3), measured("--epochs 2", gain=0.4, facts_change=-0.05, seconds=55.0)]
    assert comparison_table(cells).splitlines()[2] == "| --epochs 2 | 100 | 1 | +0.10 | -0.040 | +15 |"
    assert comparison_table(cells[:1]) == ""
    of_defaults, of_others = summary(cells)
    assert of_others["gain_difference"] == pytest.approx(0.1)
    assert of_others["gain_error"] is None
    assert "gain_difference" not in of_defaults
    assert json.loads(json.dumps(summary(cells))) == summary(cells)


def test_a_study_goes_on_after_a_line_that_was_cut(tmp_path):
    file = tmp_path / "study" / "cells.jsonl"
    assert read_cells(file, common="--prompts 200") == {}
    append_cell(file, measured(samples=["one\u2028two"]))
    with file.open("a") as lines:
        lines.write('{"tried": "", "rat')
    assert list(read_cells(file, common="--prompts 200")) == [Cell("", "short", 100, 1)]
    append_cell(file, measured(seed=2))
    assert [cell.seed for cell in read_cells(file, common="--prompts 200")] == [1, 2]


def test_cells_under_other_flags_are_not_mixed(tmp_path):
    append_cell(tmp_path / "cells.jsonl", measured())
    with pytest.raises(ValueError, match="Name another --file"):
        read_cells(tmp_path / "cells.jsonl", common="--prompts 16")


def test_a_cell_is_trained_under_its_own_flags_and_seed():
    settings = cell_settings(Cell("--epochs 2", "short", 100, 7), ["--beta", "0.3"])
    assert (settings.epochs, settings.beta, settings.seed) == (2.0, 0.3, 7)
    with pytest.raises(ValueError, match="Give --quantization outside of --try"):
        cell_settings(Cell("--quantization none", "short", 100, 7), [])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--raters", "nobody"], "expected one of question"),
        (["--comparisons", "few"], "expected whole numbers"),
        (["--seeds", "0"], "1 or more"),
        (["--try", "--model elsewhere"], "share one base"),
    ],
)
def test_flags_that_cannot_work_are_refused_before_anything_is_loaded(flags, words, capsys, tmp_path):
    assert main([*flags, "--file", str(tmp_path / "cells.jsonl")]) == 2
    assert words in capsys.readouterr().err


def test_votes_become_feedback_with_ties_and_cut_replies():
    prompt = (Message("user", "Tea?"),)
    whole, cut = Reply("Tea is hot.", True), Reply("Tea is hot and very, very", False)
    pairs = [
        Pair("1-0-0", prompt, whole, cut),
        Pair("1-0-1", prompt, cut, whole),
        Pair("1-0-2", prompt, whole, Reply("Tea is wet.", True)),
    ]
    feedback = judged(pairs, RATERS["short"])
    assert [labeled.label for labeled in feedback.comparisons] == ["A", "B", "tie"]
    rows, dropped = preference_rows(feedback)
    assert [row.chosen for row in rows] == ["Tea is hot."] * 2
    assert [row.rejected_finished for row in rows] == [False, False]
    assert dropped == {"tie": 1}


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setattr(rated, "_BLOCK", 6)


def test_the_first_pairs_of_many_are_those_of_few(base_folder, short_blocks, tmp_path):
    settings = load_settings(TrainingSettings, ["--model", str(base_folder), *QUICK])
    base = load_base(settings)

    def pairs(number, seed=3, folder="one"):
        return talk(base, pairs=number, seed=seed, settings=settings, folder=tmp_path / folder)

    few, many = pairs(4), pairs(9)
    assert len(many) == 9
    assert many[:4] == few
    assert pairs(9, folder="two") == many, "what was read again and what was drawn again are the same"
    assert pairs(4, seed=4) != few
    assert all(pair.reply_A != pair.reply_B for pair in many)
    assert {pair.prompt[-1].role for pair in many} == {"user"}


def test_one_cell_from_votes_to_a_line_in_the_file(base_folder, short_blocks, tmp_path, capsys):
    file = tmp_path / "cells.jsonl"
    flags = [
        "--raters",
        "long",
        "--comparisons",
        "12",
        "--seeds",
        "3",
        "--prompts",
        "4",
        "--file",
        str(file),
    ]
    flags += ["--json", "--model", str(base_folder), *QUICK]
    assert main(flags) == 0
    first = capsys.readouterr()
    assert "1 of 1: [defaults] long 12 seed 3" in first.err
    (found,) = read_cells(file, common=json.loads(file.read_text())["common"]).values()
    assert found.state == "rejected", "random weights have nothing to show"
    assert found.gain == 0.0
    assert found.training_pairs + found.ties < 12 + 1
    assert 0 <= found.before <= 1 and 0 <= found.after <= 1
    assert found.failed_checks
    assert set(found.phase_seconds) >= {"load", "train", "evaluate"}
    assert main(flags) == 0
    again = capsys.readouterr()
    assert again.err == "", "a cell that is done is not run again"
    assert json.loads(again.out.splitlines()[-1])["study"] == json.loads(first.out.splitlines()[-1])["study"]
