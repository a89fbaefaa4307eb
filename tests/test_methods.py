"""The methods on TRL's trainers, on a tiny model: what moves, what does not, where the loss begins, what is refused."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
import torch
from judged import DISLIKED, LIKED, quick_settings
from tiny import save_tiny_adapter, save_tiny_base

from memory.schema import Message
from training import dpo, kto, sft
from training.base import load_base
from training.bradley_terry import fit_judge
from training.evaluation import base_features
from training.journal import Cancelled
from training.lesson import Lesson
from training.method import CANDIDATE, REFERENCE, Material, NothingToLearn, method_named
from training.pairs import EncodedPair, encode_pairs, encode_replies
from training.rated import RatedRow
from training.settings import TrainingSettings
from training.views import Feedback, PreferenceRow, PreferenceView

SETTINGS = quick_settings(batch_size=6, min_steps=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(folder):
    return load_base(SETTINGS.model_copy(update={"model": str(folder)}))


def pairs_of(base, count=3):
    rows = [
        PreferenceRow((Message("user", f"What about {n}?"),), LIKED[n % 3], DISLIKED[n % 3], str(n), str(n))
        for n in range(count)
    ]
    return encode_pairs(base.tokenizer, rows, context_tokens=256)[1]


def replies_of(base, *, liked=3, disliked=3):
    rows = [
        RatedRow((Message("user", f"What about {n}?"),), text, good, str(n), f"rating:{n}")
        for good, texts, count in ((True, LIKED, liked), (False, DISLIKED, disliked))
        for n, text in enumerate(texts[n % 3] for n in range(count))
    ]
    return encode_replies(base.tokenizer, rows, context_tokens=256)[1]


def plain_tensors(model):
    """The base's tensors by their plain names, wherever PEFT has put them."""
    return {
        name.replace("base_model.model.", "").replace(".base_layer", ""): tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if "lora_" not in name
    }


def logprobs_of(model, row):
    """Log-probability of each token of the reply, by a plain softmax."""
    with torch.no_grad():
        logits = model(torch.tensor([[*row.prompt, *row.reply]])).logits[0].double()
    places = range(len(row.prompt) - 1, len(row.prompt) + len(row.reply) - 1)
    return [float(logits[at].log_softmax(-1)[token]) for at, token in zip(places, row.reply, strict=True)]


TRAINERS = {
    "kto": lambda base: (kto.train, replies_of(base)),
    "sft": lambda base: (sft.train, replies_of(base, disliked=0)),
    "ipo": lambda base: (dpo.train, pairs_of(base)),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_every_adapter_tensor_moves_no_base_tensor_does_and_the_forward_comes_back(base, tmp_path, name):
    settings = SETTINGS.model_copy(update={"dpo_loss": "ipo" if name == "ipo" else "sigmoid"})
    train, rows = TRAINERS[name](base)
    before, steps = plain_tensors(base.model), []
    model = train(base, rows, settings=settings, folder=tmp_path, on_step=steps.append)
    after = plain_tensors(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    adapter = {name: value for name, value in model.named_parameters() if f".{CANDIDATE}." in name}
    assert len(adapter) == 2 * 7 * base.model.config.num_hidden_layers
    assert all(bool(value.ne(0).any()) for name, value in adapter.items() if "lora_B" in name)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert steps[-1].values["loss"] < steps[0].values["loss"]
    assert "forward" not in base.model.__dict__


def first_values(train, base, rows, tmp_path, **changes):
    found = []
    settings = SETTINGS.model_copy(update=changes)
    train(base, rows, settings=settings, folder=tmp_path, on_step=lambda step: found.append(step.values))
    return found[0]


@pytest.mark.parametrize("sft_weight", [0.0, 0.5])
def test_the_first_loss_of_kto_is_half_the_mean_weight_and_the_likelihood_of_what_is_liked(
    base, tmp_path, monkeypatch, sft_weight
):
    """A fresh policy is its reference: every log-ratio and the divergence are 0, and a row costs w (1 - sigmoid(0)), or
    w / 2. Of four liked and two disliked rows the latter weigh twice: (4 * 1 + 2 * 2) / 6 / 2 = 2 / 3. To that comes
    minus the mean log-probability of the tokens of liked replies, one at a time."""
    monkeypatch.setattr("training.trl_training.multiplies_bfloat16", lambda device: False)
    rows = replies_of(base, liked=4, disliked=2)
    assert kto.label_weights(rows) == {"desirable_weight": 1.0, "undesirable_weight": 2.0}
    nll = -fmean(score for row in rows if row.liked for score in logprobs_of(base.model, row))
    values = first_values(kto.train, base, rows, tmp_path, sft_weight=sft_weight)
    assert values["loss"] == pytest.approx(2 / 3 + sft_weight * nll, abs=1e-4)
    assert values["kl"] == pytest.approx(0.0, abs=1e-3)


def test_every_batch_of_kto_has_both_kinds_and_every_row_is_in_one(base):
    rows = replies_of(base, liked=9, disliked=4)
    ordered = kto.in_batches(rows, size=4, seed=1)
    assert len(ordered) == 16
    assert {id(row) for row in ordered} == {id(row) for row in rows}
    assert all(0 < sum(row.liked for row in ordered[at : at + 4]) < 4 for at in range(0, 16, 4))
    assert kto.in_batches(rows, size=4, seed=1) == ordered
    assert len(kto.in_batches(rows[:1], size=4, seed=1)) == 4


def test_a_reply_goes_to_a_prompt_that_it_does_not_answer(base, tmp_path, monkeypatch):
    """The batch (x1, y1), (x2, y2), (x3, y3) is laid out once more as (x1, y3), (x2, y1), (x3, y2)."""
    seen = {}

    def keep(trainer, score, **_):
        seen.update(trainer.train_dataset.to_dict())
        raise Cancelled("seen")

    monkeypatch.setattr("training.kto.score_reference", keep)
    with pytest.raises(Cancelled):
        kto.train(base, replies_of(base), settings=SETTINGS, folder=tmp_path)
    assert seen["KL_completion_ids"] == [seen["completion_ids"][at - 1] for at in range(6)]


def test_the_first_loss_of_sft_is_the_likelihood_a_token_of_the_replies(base, tmp_path, monkeypatch):
    """Six replies in one batch, prompts not counted: minus the mean over all their tokens, one at a time."""
    monkeypatch.setattr("training.trl_training.multiplies_bfloat16", lambda device: False)
    rows = replies_of(base, liked=6, disliked=0)
    by_hand = -fmean(score for row in rows for score in logprobs_of(base.model, row))
    assert first_values(sft.train, base, rows, tmp_path)["loss"] == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dpo_loss": "ipo", "beta": 0.1}, 25.0),
        ({"dpo_loss": "robust", "label_smoothing": 0.1}, math.log(2)),
        ({"dpo_loss": "sigmoid", "label_smoothing": 0.1}, math.log(2)),
    ],
)
def test_the_first_loss_of_dpo_by_each_loss(base, tmp_path, monkeypatch, changes, expected):
    """At a margin of 0: ipo (0 - 1 / (2 * 0.1))^2 = 25; robust [(1 - e) log 2 - e log 2] / (1 - 2e) = log 2."""
    monkeypatch.setattr("training.trl_training.multiplies_bfloat16", lambda device: False)
    values = first_values(dpo.train, base, pairs_of(base), tmp_path, sft_weight=0.0, **changes)
    assert values["loss"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["kto", "sft"])
def test_a_training_that_was_killed_and_resumed_gives_the_same_adapter_bit_for_bit(folder, tmp_path, name):
    settings = SETTINGS.model_copy(
        update={"model": str(folder), "batch_size": 4, "min_steps": 5, "save_steps": 2}
    )

    def trained(run, on_step):
        base = load_base(settings)
        rows = replies_of(base, liked=7, disliked=0 if name == "sft" else 6)
        model = TRAINERS[name](base)[0](base, rows, settings=settings, folder=tmp_path / run, on_step=on_step)
        return {key: value for key, value in model.named_parameters() if f".{CANDIDATE}." in key}

    def die(step):
        if step.step == 3:
            raise Cancelled("killed")

    whole = trained("whole", lambda step: None)
    with pytest.raises(Cancelled):
        trained("broken", die)
    steps = []
    again = trained("broken", lambda step: steps.append(step.step))
    assert steps == [3, 4, 5], "it went on from the checkpoint after step 2"
    assert all(torch.equal(value, again[key]) for key, value in whole.items())


def test_losses_and_smoothing_that_contradict_each_other_are_named():
    for changes in ({"dpo_loss": "robust"}, {"dpo_loss": "ipo", "label_smoothing": 0.1}):
        with pytest.raises(ValueError, match=r"dpo_loss is \w+ and label_smoothing"):
            TrainingSettings(**changes)


@pytest.mark.parametrize("name", ["kto", "sft"])
def test_continuing_an_adapter_keeps_a_frozen_copy_to_compare_with(base, tmp_path, name):
    previous = save_tiny_adapter(tmp_path / "previous", base.model, seed=3)
    train, rows = TRAINERS[name](base)
    model = train(base, rows, settings=SETTINGS, folder=tmp_path / "run", previous=previous)
    named = dict(model.named_parameters())
    for key, value in named.items():
        if f".{CANDIDATE}." in key:
            assert not torch.equal(value, named[key.replace(f".{CANDIDATE}.", f".{REFERENCE}.")]), key


def lesson_of(base, **parts):
    rows = [
        PreferenceRow((Message("user", f"What about {n}?"),), LIKED[n % 3], DISLIKED[n % 3], str(n), str(n))
        for n in range(6)
    ]
    return Lesson(
        parts.pop("pairs", []),
        parts.pop("people", 0),
        [],
        fit_judge(rows, base_features(base, base.model)),
        [],
        **parts,
    )


def learn(name, base, lesson, tmp_path, settings=SETTINGS):
    material = Material(Feedback(), PreferenceView((), ()), lesson)
    return method_named(name)(
        base,
        material,
        settings=settings,
        folder=tmp_path,
        previous=None,
        on_step=lambda step: None,
        check=lambda: None,
    )


def test_kto_learns_from_thumbs_and_from_both_sides_of_pairs(base, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("training.kto.train", lambda base, rows, **_: seen.setdefault("rows", rows))
    rated, pairs = replies_of(base, liked=1, disliked=0), [EncodedPair((1, 2), (3,), (4, 5))]
    learn("kto", base, lesson_of(base, pairs=pairs, rated=rated), tmp_path)
    assert [(row.reply, row.liked) for row in seen["rows"][1:]] == [((3,), True), ((4, 5), False)]
    assert seen["rows"][0] == rated[0]


def test_sft_learns_what_was_written_and_liked_and_the_best_that_the_judge_found(base, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("training.sft.train", lambda base, rows, **_: seen.setdefault("rows", rows))
    written, rated = replies_of(base, liked=1, disliked=0), replies_of(base, liked=1, disliked=1)
    pairs = [EncodedPair((1,), (2,), (3,)), EncodedPair((4,), (5,), (6,))]
    learn("sft", base, lesson_of(base, pairs=pairs, people=1, rated=rated, written=written), tmp_path)
    assert [row.reply for row in seen["rows"]] == [written[0].reply, rated[0].reply, (5,)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kto", "1 of 1 that fit the context are liked"),
        ("sft", "SFT learns from corrections and liked replies"),
        ("dpo", "no pair to train on"),
    ],
)
def test_a_method_without_its_feedback_says_what_it_needs(base, tmp_path, name, words):
    rated = replies_of(base, liked=1, disliked=0) if name == "kto" else []
    with pytest.raises(NothingToLearn, match=words):
        learn(name, base, lesson_of(base, rated=rated), tmp_path)


def test_kto_needs_a_second_reply_in_a_batch(base, tmp_path):
    with pytest.raises(NothingToLearn, match="batch_size is 1"):
        kto.train(
            base, replies_of(base), settings=SETTINGS.model_copy(update={"batch_size": 1}), folder=tmp_path
        )


def test_auto_is_no_method_of_its_own():
    with pytest.raises(KeyError, match="expected one of dpo, kto, sft, rloo, grpo, ppo"):
        method_named("auto")
