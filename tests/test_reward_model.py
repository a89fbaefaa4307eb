"""The reward model: what it learns from, what moves, what is saved, what it is worth, and when PPO may not have it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from judged import DISLIKED, LIKED, comparison_of, fill_ledger, quick_settings, turn
from safetensors.torch import load_file, save_file
from tiny import save_tiny_base

from memory.database import open_database
from memory.ledger import Ledger
from memory.schema import Correction, LabeledComparison, Message, Ranking
from training.base import load_base
from training.method import Step, TrainingDiverged
from training.orderings import Ordering, orderings_of, rater_weights, split_orderings
from training.reward_command import main
from training.reward_examination import examine
from training.reward_fitting import encode_orderings, fit, reward_steps
from training.reward_model import REWARD, RewardModel, RewardModelRefused
from training.reward_validation import Scored, problem_with, validate
from training.views import Feedback, preference_view, read_feedback

SETTINGS = quick_settings(batch_size=4, min_steps=12, reward_epochs=1.0, reward_learning_rate=1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(folder):
    return load_base(SETTINGS.model_copy(update={"model": str(folder)}))


def ordering(number, *replies, tied=False, rater="ann"):
    said = replies or (LIKED[number % 3], DISLIKED[number % 3])
    prompt = (Message("user", f"What about {number}?"),)
    return Ordering(prompt, said, (True,) * len(said), rater, str(number), f"comparison:{number}", tied)


def mixed():
    """Pairs, a tie and rankings of three."""
    return [
        *(ordering(number) for number in range(5)),
        ordering(6, "Tea.", "Coffee.", tied=True),
        ordering(7, LIKED[0], DISLIKED[0], "Tea!"),
        ordering(8, LIKED[1], DISLIKED[1], "Tea!"),
    ]


def encoded(base, orderings=None, settings=SETTINGS):
    return encode_orderings(base, orderings or mixed(), settings=settings)


def state(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_every_lora_tensor_and_the_head_move_and_no_base_tensor_does(base):
    before = state(base.model)
    steps: list[Step] = []
    fresh = fit(base, encoded(base), settings=still())
    untouched = state(fresh.model)
    moved = fit(again(base), encoded(base), settings=SETTINGS, on_step=steps.append)
    after = state(moved.model)
    lora = [name for name in after if "lora_" in name]
    assert len(lora) == 2 * 7 * base.model.config.num_hidden_layers
    assert all(f".{REWARD}." in name for name in lora)
    assert not any(torch.equal(after[name], untouched[name]) for name in lora)
    kept = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): value
        for name, value in after.items()
    }
    assert all(torch.equal(before[name], kept[name]) for name in before)
    assert not torch.equal(moved.head.weight, fresh.head.weight)
    assert float(moved.head.bias.detach()) != 0
    assert [step.step for step in steps] == list(range(1, 13))
    assert steps[-1].values["reward_model/loss"] < steps[0].values["reward_model/loss"]


def still():
    """A learning rate so small that everything stays as it was drawn."""
    return SETTINGS.model_copy(update={"reward_learning_rate": 1e-30, "min_steps": 1, "reward_epochs": 0.1})


def again(base):
    return load_base(SETTINGS.model_copy(update={"model": base.name}))


def test_it_orders_what_it_was_fitted_on_and_the_mean_reward_is_zero(base):
    orderings = encoded(base)
    settings = SETTINGS.model_copy(update={"min_steps": 40})
    reward_model = fit(base, orderings, settings=settings)
    report = examine(reward_model, orderings)
    assert report.accuracy == 1.0
    assert (report.pairs, report.rankings, report.ties) == (5 + 2 * 3, 2, 1)
    assert report.spearman == report.kendall == 1.0
    assert report.tied_lead < report.lead
    prompts = [item.prompt for item in orderings for _ in item.replies]
    rewards = torch.tensor(reward_model.score(prompts, [r for item in orderings for r in item.replies]))
    assert float(rewards.mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(rewards.std()) == pytest.approx(reward_model.spread, abs=1e-4)


def test_a_reply_scores_the_same_alone_and_among_others(base):
    reward_model = fit(base, encoded(base), settings=SETTINGS)
    items = encoded(base)
    together = reward_model.score([i.prompt for i in items], [i.replies[0] for i in items])
    alone = [reward_model.score([i.prompt], [i.replies[0]])[0] for i in items]
    assert together == pytest.approx(alone, abs=1e-4)


def test_what_is_saved_comes_back_bit_equal_without_another_copy_of_the_base(base, tmp_path):
    items = encoded(base)
    reward_model = fit(base, items, settings=SETTINGS)
    report = examine(reward_model, items)
    saved = reward_model.save(tmp_path / "reward", report=report, feedback_ids=["b", "a", "b"])
    rewards = reward_model.score([i.prompt for i in items], [i.replies[0] for i in items])
    assert {file.name for file in saved.rglob("*") if file.is_file()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "head.safetensors",
        "reward_model.json",
    }
    manifest = json.loads((saved / "reward_model.json").read_text())
    assert manifest["base_identity"] == base.identity
    assert manifest["feedback_ids"] == ["a", "b"]
    loaded, known = RewardModel.load(again(base), saved)
    assert known == report
    assert loaded.spread == reward_model.spread
    assert torch.equal(loaded.head.weight, reward_model.head.weight)
    assert torch.equal(loaded.head.bias, reward_model.head.bias)
    ours, theirs = state(reward_model.model), state(loaded.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.score([i.prompt for i in items], [i.replies[0] for i in items]) == rewards


def test_a_reward_model_that_was_changed_or_is_of_another_base_is_refused(base, tmp_path):
    items = encoded(base)
    reward_model = fit(base, items, settings=still())
    saved = reward_model.save(tmp_path / "r", report=examine(reward_model, items), feedback_ids=[])
    other = replace(again(base), identity="0" * 16)
    with pytest.raises(RewardModelRefused, match="was fitted on base"):
        RewardModel.load(other, saved)
    head = load_file(saved / "head.safetensors")
    save_file({name: value + 1 for name, value in head.items()}, saved / "head.safetensors")
    with pytest.raises(RewardModelRefused, match=r"head\.safetensors is missing or was changed"):
        RewardModel.load(again(base), saved)
    (saved / "reward_model.json").unlink()
    with pytest.raises(RewardModelRefused, match="was never finished"):
        RewardModel.load(again(base), saved)


def test_the_same_seed_fits_the_same_model(base):
    models = [fit(b, encoded(b), settings=SETTINGS) for b in (base, again(base))]
    first, second = (state(model.model) for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(models[0].head.weight, models[1].head.weight)


def test_the_first_loss_is_what_the_rewards_say(base):
    """One pair, rewards a and b under a fresh head: log(1 + exp(-(a - b - m))); LoRA begins at the base's own
    states."""
    items = encoded(base, [ordering(0)])
    losses: list[float] = []
    settings = still()
    reward_model = fit(
        base, items, settings=settings, on_step=lambda step: losses.append(step.values["reward_model/loss"])
    )
    first, second = reward_model.score([items[0].prompt] * 2, list(items[0].replies))
    expected = math.log1p(math.exp(-(first - second - settings.reward_margin)))
    assert losses == pytest.approx([expected], abs=1e-5)


def test_a_rater_without_weight_teaches_nothing(base):
    """The contradicting rater's pairs weigh 0: the loss is that of the other's alone."""
    losses: list[float] = []
    ours, theirs = ordering(0), ordering(0, DISLIKED[0], LIKED[0], rater="bob")
    items = encoded(base, [ours, theirs])
    silent = [items[0], replace(items[1], weight=0.0)]
    for case in (silent, items[:1]):
        fit(
            again(base),
            case,
            settings=still(),
            on_step=lambda s: losses.append(s.values["reward_model/loss"]),
        )
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_nothing_but_ties_is_refused_and_so_is_a_loss_that_is_no_number(base):
    with pytest.raises(ValueError, match="no comparison to fit"):
        fit(base, encoded(base, [ordering(0, "Tea.", "Coffee.", tied=True)]), settings=SETTINGS)
    wild = SETTINGS.model_copy(update={"reward_learning_rate": 1e30})
    with pytest.raises(TrainingDiverged, match="Lower reward_learning_rate"):
        fit(base, encoded(base), settings=wild)


def test_steps_are_passes_and_enough_of_them():
    settings = quick_settings(batch_size=8, reward_epochs=3.0, min_steps=10)
    assert (reward_steps(8, settings), reward_steps(80, settings)) == (10, 30)


def test_long_orderings_are_left_out_whole(base):
    assert len(encoded(base, [ordering(0), ordering(1, "tea " * 400, "No.")])) == 1


def feedback_of(database):
    return read_feedback(Ledger(database))


def test_orderings_keep_ties_rankings_and_raters(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    ledger = Ledger(database)
    turns = [turn(f"t{n}", "c", "Which?", f"Reply {n}") for n in range(4)]
    for made in turns:
        ledger.record_turn(made)
    ledger.record(LabeledComparison(comparison_of("q", turns[0], turns[1]), "tie", "ann", 1.0, 1.0))
    ledger.record(LabeledComparison(comparison_of("r", turns[0], turns[2]), "B", "bob", 1.0, 2.0))
    ledger.record(LabeledComparison(comparison_of("s", turns[1], turns[2]), "both_bad", "bob", 1.0, 2.0))
    ledger.record(Ranking(("t3", "t1", "t0"), "cid", 3.0))
    ledger.record(Correction("t0", "Better", "cid", 4.0))
    found = orderings_of(feedback_of(database))
    database.close()
    assert [(item.replies, item.tied, item.rater) for item in found] == [
        (("Reply 0", "Reply 1"), True, "ann"),
        (("Reply 2", "Reply 0"), False, "bob"),
        (("Reply 3", "Reply 1", "Reply 0"), False, "cid"),
        (("Better", "Reply 0"), False, "cid"),
    ]
    assert [item.pairs for item in found] == [0, 1, 3, 1]


def test_what_nobody_said_or_saw_is_no_ordering():
    cut, failed = turn("a", "c", "Hm?", "One", finish="length"), turn("b", "c", "Hm?", "Two", finish="error")
    whole = turn("d", "c", "Hm?", "One")
    turns = {made.id: made for made in (cut, failed, whole)}
    votes = tuple(
        LabeledComparison(comparison_of(name, first, second), "A", "ann", 1.0, 1.0)
        for name, first, second in (
            ("p", cut, failed),
            ("q", cut, whole),
            ("r", cut, turn("e", "c", "Hm?", "Three")),
        )
    )
    found = orderings_of(Feedback(comparisons=votes, turns=turns))
    assert [(item.feedback_id, item.finished) for item in found] == [("comparison:r", (False, True))]


def test_orderings_stand_on_the_side_of_the_pairs(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    fill_ledger(database, comparisons=30)
    feedback = feedback_of(database)
    database.close()
    view = preference_view(feedback, share=0.2)
    train, heldout = split_orderings(orderings_of(feedback), view.train_prompts)
    assert {item.feedback_id for item in train} == {row.feedback_id for row in view.train}
    assert {item.feedback_id for item in heldout} == {row.feedback_id for row in view.heldout}


def test_raters_weigh_alike_however_much_they_judged():
    """Three by ann, one by bob: 4 / 2 / 3 = 2/3 each for ann, 4 / 2 / 1 = 2 for bob; the mean is 1."""
    judged = [ordering(n) for n in range(3)] + [ordering(3, rater="bob")]
    assert rater_weights(judged, "rater") == pytest.approx([2 / 3] * 3 + [2.0])
    assert rater_weights(judged, "judgement") == [1.0] * 4


def test_validation_of_a_few_known_rewards():
    """Leads 2, -1 and of the ranking 3, 1, 2: 2, 1, -1. Right in 3 of 5. Confidences sigmoid 0.8808 (twice, both
    right), 0.7311 (thrice, one right): |1 - 0.8808| * 2/5 + |1/3 - 0.7311| * 3/5 = 0.0477 + 0.2387 = 0.2864. The
    longer reply is better in the first pair, in none of the others that differ: 1 of 4.
    """
    report = validate(
        [
            Scored((2.0, 0.0), (9, 5)),
            Scored((0.0, 1.0), (5, 5)),
            Scored((3.0, 1.0, 2.0), (4, 5, 6)),
            Scored((1.0, 0.5), (4, 4), tied=True),
        ]
    )
    assert (report.pairs, report.rankings, report.ties, report.orderings) == (5, 1, 1, 4)
    assert report.accuracy == pytest.approx(0.6)
    assert report.accuracy_low == pytest.approx(0.2307, abs=1e-4)
    assert report.spearman == pytest.approx(0.5)
    assert report.kendall == pytest.approx(1 / 3)
    assert report.calibration_error == pytest.approx(0.2864, abs=1e-3)
    assert report.length_accuracy == pytest.approx(1 / 4)
    assert report.tied_lead == 0.5
    assert report.lead == pytest.approx(7 / 5)


def test_a_reward_that_is_length_is_seen_as_such():
    report = validate([Scored((4.0, 1.0), (40, 10)), Scored((2.0, 6.0), (20, 60))])
    assert report.length_correlation == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (0, 0, "could not be examined"),
        (11, 9, "not surely better than a coin"),
        (60, 40, "min_reward_accuracy is 65%"),
        (70, 30, ""),
    ],
)
def test_below_the_bar_it_says_why(right, wrong, said):
    """60 of 100 have a lower end of 50.2 %, surely more than a coin and yet below a bar of 65 %."""
    scored = [Scored((1.0, 0.0), (3, 3))] * right + [Scored((0.0, 1.0), (3, 3))] * wrong
    problem = problem_with(validate(scored), quick_settings(min_reward_accuracy=0.65))
    assert (said in problem) if said else problem == ""


def test_the_command_fits_examines_and_saves(tmp_path, folder, capsys):
    database = open_database(f"sqlite:///{tmp_path / 'thumbprint.db'}")
    flags = ["--data-dir", str(tmp_path), "--model", str(folder), "--quantization", "none"]
    flags += ["--context-tokens", "256", "--max-new-tokens", "8", "--lora-rank", "2", "--min-steps", "20"]
    flags += ["--reward-learning-rate", "0.01", "--min-comparisons", "12"]
    assert main(flags) == 4
    fill_ledger(database, comparisons=30)
    database.close()
    assert main([*flags, "--min-reward-accuracy", "1"]) in (0, 3)
    code = main([*flags, "--min-reward-accuracy", "0"])
    printed = capsys.readouterr().out
    assert '"accuracy"' in printed
    assert (tmp_path / "reward_model" / "reward_model.json").is_file()
    assert ("PPO may use it" in printed.splitlines()[-1]) == (code == 0)
