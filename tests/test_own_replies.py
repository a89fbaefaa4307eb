"""Training on the half-trained adapter's own replies: what is asked, what is kept, and what is left in the model."""

from __future__ import annotations

import pytest
import torch
from judged import DISLIKED, LIKED, quick_settings
from safetensors.torch import load_file
from tiny import save_tiny_base

from memory.schema import Message
from training.base import load_base
from training.base_features import base_features
from training.bradley_terry import fit_judge
from training.checkpoints import FOLDER
from training.dpo import learn, train
from training.labelling import Pool, judged_rows, pools_of
from training.lesson import Lesson
from training.method import CANDIDATE, REFERENCE, Material, adapter_parameters
from training.own_replies import own_pairs, own_steps
from training.pairs import encode_pairs
from training.publishing import save_candidate
from training.views import Feedback, PreferenceRow, PreferenceView

SETTINGS = quick_settings(
    batch_size=2,
    min_steps=10,
    learning_rate=1e-2,
    own_share=0.4,
    judge_confidence=0.501,
    max_new_tokens=24,
    temperature=2.0,
    top_p=1.0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(folder):
    loaded = load_base(SETTINGS.model_copy(update={"model": str(folder)}))
    # Random weights hardly ever end a reply; with every sixth token as an end they do.
    loaded.model.generation_config.eos_token_id = list(range(2, len(loaded.tokenizer), 6))
    return loaded


@pytest.fixture
def lesson(base):
    rows = [
        PreferenceRow((Message("user", f"What about {n}?"),), LIKED[n % 3], DISLIKED[n % 3], str(n), str(n))
        for n in range(12)
    ]
    judge = fit_judge(rows, base_features(base, base.model))
    prompts = [row.prompt for row in rows]
    pools = pools_of(base, base.model, prompts, times=4, adapter=None, seed=1, settings=SETTINGS)
    return Lesson(encode_pairs(base.tokenizer, rows, context_tokens=256)[1], 12, [], judge, pools)


def learned(base, lesson, folder, *, settings=SETTINGS, previous=None):
    steps = []
    model = learn(
        base,
        Material(Feedback(), PreferenceView((), ()), lesson),
        settings=settings,
        folder=folder,
        previous=previous,
        on_step=steps.append,
        check=lambda: None,
    )
    return model, steps


def values(model, adapter=CANDIDATE):
    return [value.detach().clone() for value in adapter_parameters(model, adapter)]


def same(first, second):
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_share_of_the_steps_is_kept_where_there_are_pools_and_an_opinion(lesson):
    assert own_steps(lesson, 30, SETTINGS) == 12
    assert own_steps(lesson, 30, quick_settings(own_share=0.0)) == 0
    assert own_steps(Lesson(lesson.pairs, 12, [], lesson.judge, []), 30, SETTINGS) == 0


def test_the_best_third_is_preferred_to_the_worst_third(lesson):
    pool = Pool((Message("user", "Tea?"),), tuple(f"{words}" for words in (*LIKED, *DISLIKED)))
    ranked = sorted(pool.replies, key=lambda reply: -lesson.judge.scores([(pool.prompt, reply)])[0])
    rows = judged_rows(lesson.judge, [pool], settings=SETTINGS, part=3)
    assert {(row.chosen, row.rejected) for row in rows} == {(ranked[0], ranked[5]), (ranked[1], ranked[4])}
    assert len(judged_rows(lesson.judge, [pool], settings=SETTINGS)) == 3


def test_the_second_part_goes_on_from_the_first(base, lesson, tmp_path):
    model, steps = learned(base, lesson, tmp_path)
    assert [step.step for step in steps] == list(range(1, 11))
    assert {step.total_steps for step in steps} == {10}
    assert [step.doing for step in steps] == ["Training"] * 6 + ["Training on its own replies"] * 4
    halfway = load_file(tmp_path / FOLDER / "halfway" / "adapter_model.safetensors")
    assert len(halfway) == len(values(model))
    assert not any(
        torch.equal(value, other) for value, other in zip(values(model), halfway.values(), strict=True)
    )
    assert list(model.peft_config) == [CANDIDATE], (
        "the reference of the second part is of no use to anybody else"
    )
    assert not model.training


def test_without_a_share_it_is_the_plain_training(base, lesson, tmp_path):
    settings = SETTINGS.model_copy(update={"own_share": 0.0})
    model, steps = learned(base, lesson, tmp_path / "one", settings=settings)
    found = values(model)
    model.unload()
    plain = train(base, lesson.pairs, settings=settings, folder=tmp_path / "two")
    assert len(steps) == 10
    assert same(found, values(plain))
    assert not (tmp_path / "one" / FOLDER / "halfway").exists()


def test_a_judge_who_cannot_choose_ends_it_with_the_first_part(base, lesson, tmp_path):
    strict = SETTINGS.model_copy(update={"judge_confidence": 1 - 1e-12})
    model, steps = learned(base, lesson, tmp_path, settings=strict)
    assert [step.step for step in steps] == list(range(1, 7))
    kept = load_file(tmp_path / FOLDER / "halfway" / "adapter_model.safetensors")
    assert sum(float(value.abs().sum()) for value in values(model)) == pytest.approx(
        sum(float(value.abs().sum()) for value in kept.values())
    )


def test_what_was_continued_stays_the_reference_to_be_examined_by(base, lesson, tmp_path):
    settings = SETTINGS.model_copy(update={"own_share": 0.0})
    first = train(base, lesson.pairs, settings=settings, folder=tmp_path / "first")
    before = values(first)
    served = save_candidate(first, tmp_path / "served")
    first.unload()
    model, _ = learned(base, lesson, tmp_path / "second", previous=served)
    assert same(values(model, REFERENCE), before)
    assert not same(values(model), before)
    assert all(value.requires_grad is False for value in adapter_parameters(model, REFERENCE))


def test_a_training_that_was_killed_halfway_goes_on_there(base, lesson, tmp_path):
    whole, _ = learned(base, lesson, tmp_path)
    expected = values(whole)
    whole.unload()
    resumed, steps = learned(base, lesson, tmp_path)
    assert [step.step for step in steps] == [7, 8, 9, 10]
    assert same(values(resumed), expected)


def test_own_pairs_are_what_the_adapter_says_and_the_base_is_left_as_it_was(base, lesson, tmp_path):
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    model = train(base, lesson.pairs, settings=SETTINGS, folder=tmp_path)
    adapter = save_candidate(model, tmp_path / "adapter")
    model.unload()
    pairs = own_pairs(base, adapter, lesson, settings=SETTINGS, check=lambda: None)
    assert pairs
    said = {reply for pool in lesson.pools for reply in pool.replies}
    chosen = {base.tokenizer.decode(pair.chosen, skip_special_tokens=True) for pair in pairs}
    assert not chosen & said, "an adapter that has moved so far says other things than the base"
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
