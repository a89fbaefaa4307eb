"""RLOO and GRPO on a tiny model: rewards in the reward model's units, what moves and what does not, what is refused."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from judged import DISLIKED, LIKED, quick_settings
from tiny import save_tiny_adapter, save_tiny_base

from memory.schema import Message
from training import grpo, rloo
from training.base import load_base
from training.generation import sample
from training.group_training import optimize, steps_of
from training.journal import Cancelled
from training.method import CANDIDATE, REFERENCE, NothingToLearn
from training.orderings import Ordering
from training.prompt import encode_prompt
from training.reward_fitting import encode_orderings, fit
from training.reward_model import RewardModel

SETTINGS = quick_settings(
    batch_size=8, rollout_size=8, group_size=4, group_iterations=3, group_learning_rate=1e-2, min_steps=4
)
METHODS = {"rloo": rloo.trainer_of, "grpo": grpo.trainer_of}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(folder):
    return load_base(SETTINGS.model_copy(update={"model": str(folder)}))


def rewarding(base):
    """A reward model, and the prompts."""
    orderings = [
        Ordering(
            (Message("user", f"What about {n}?"),),
            (LIKED[n % 3], DISLIKED[n % 3]),
            (True, True),
            "r",
            str(n),
            str(n),
        )
        for n in range(6)
    ]
    reward_model = fit(base, encode_orderings(base, orderings, settings=SETTINGS), settings=SETTINGS)
    return reward_model, [encode_prompt(base.tokenizer, ordering.prompt) for ordering in orderings]


def tensors(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", METHODS)
def test_the_policy_moves_and_nothing_else_does(base, tmp_path, name):
    reward_model, prompts = rewarding(base)
    before, steps = tensors(reward_model.model), []
    model = optimize(
        reward_model,
        prompts,
        METHODS[name],
        settings=SETTINGS,
        folder=tmp_path,
        previous=None,
        on_step=steps.append,
    )
    after = tensors(model)
    assert list(model.peft_config) == [CANDIDATE], "the reward model and the copy of a fresh adapter are gone"
    kept = {key for key in before if "lora_" not in key}
    assert all(torch.equal(before[key], after[key]) for key in kept)
    moved = {key: value for key, value in after.items() if f".{CANDIDATE}." in key}
    assert len(moved) == 2 * 7 * base.model.config.num_hidden_layers
    assert all(bool(value.ne(0).any()) for value in moved.values())
    assert [step.step for step in steps] == [1, 2, 3]
    assert steps[0].values["kl"] == pytest.approx(0.0, abs=1e-2), "a fresh policy is its reference"
    assert "forward" not in base.model.__dict__


def test_rewards_are_scores_in_their_spread_less_the_penalty_for_not_ending(base, tmp_path, monkeypatch):
    """By hand for the replies of the first generation; the advantages of RLOO add up to nothing in every group, so the
    loss of a batch that holds whole groups begins at 0."""
    reward_model, prompts = rewarding(base)
    reward_model.spread = 2.0
    seen, score = [], RewardModel.score

    def spy(self, asked, replies, *, check):
        scores = score(self, asked, replies, check=check)
        seen.append(list(zip(scores, replies, strict=True)))
        return scores

    monkeypatch.setattr(RewardModel, "score", spy)
    steps = []
    settings = SETTINGS.model_copy(update={"group_iterations": 1, "missing_eos_penalty": 3.0})
    optimize(
        reward_model,
        prompts,
        rloo.trainer_of,
        settings=settings,
        folder=tmp_path,
        previous=None,
        on_step=steps.append,
    )
    by_hand = fmean(value / 2.0 - 3.0 * (reply[-1] not in base.ends) for value, reply in seen[0])
    assert steps[0].values["reward"] == pytest.approx(by_hand, abs=1e-4)
    assert steps[0].values["loss"] == pytest.approx(0.0, abs=1e-3)


def test_each_prompt_is_answered_by_a_group_and_another_generation_samples_anew(base, tmp_path, monkeypatch):
    asked, seeds = [], []

    def spy(model, prompts, *, decoding, **others):
        asked.append([tuple(prompt) for prompt in prompts])
        seeds.append(decoding.seed)
        return sample(model, prompts, decoding=decoding, **others)

    monkeypatch.setattr("training.group_training.sample", spy)
    reward_model, prompts = rewarding(base)
    settings = SETTINGS.model_copy(update={"group_iterations": 2})
    optimize(reward_model, prompts[:1], grpo.trainer_of, settings=settings, folder=tmp_path, previous=None)
    assert len(asked) == len(set(seeds)) == 2
    assert all(generation == [tuple(prompts[0])] * 8 for generation in asked), "one prompt, so it comes twice"


def test_a_continued_adapter_is_the_reference(base, tmp_path):
    previous = save_tiny_adapter(tmp_path / "previous", base.model, seed=3)
    reward_model, prompts = rewarding(base)
    settings = SETTINGS.model_copy(update={"group_iterations": 1})
    model = optimize(
        reward_model, prompts, rloo.trainer_of, settings=settings, folder=tmp_path / "run", previous=previous
    )
    assert set(model.peft_config) == {CANDIDATE, REFERENCE}


def test_a_training_that_was_killed_and_resumed_gives_the_same_adapter_bit_for_bit(folder, tmp_path):
    """Two optimizer steps a generation, a checkpoint asked for after each: they wait for the end of the generation."""
    settings = SETTINGS.model_copy(
        update={"model": str(folder), "batch_size": 4, "group_iterations": 3, "save_steps": 1}
    )

    def trained(run, on_step):
        reward_model, prompts = rewarding(load_base(settings))
        model = optimize(
            reward_model,
            prompts,
            grpo.trainer_of,
            settings=settings,
            folder=tmp_path / run,
            previous=None,
            on_step=on_step,
        )
        return tensors(model)

    def die(step):
        if step.step == 4:
            raise Cancelled("killed")

    whole = trained("whole", lambda step: None)
    with pytest.raises(Cancelled):
        trained("broken", die)
    steps = []
    again = trained("broken", lambda step: steps.append(step.step))
    assert steps == [3, 4, 5, 6]
    assert all(torch.equal(value, again[key]) for key, value in whole.items())


def test_a_reply_is_learned_from_once():
    assert steps_of(SETTINGS) == 3
    halves = SETTINGS.model_copy(update={"batch_size": 4})
    assert steps_of(halves) == 6
    assert steps_of(halves.model_copy(update={"gradient_accumulation": 2})) == 3


@pytest.mark.parametrize("changes", [{"group_size": 3}, {"batch_size": 5}, {"batch_size": 16}])
def test_sizes_that_do_not_divide_are_refused(base, tmp_path, changes):
    reward_model, prompts = rewarding(base)
    with pytest.raises(NothingToLearn, match="rollout_size is 8; expected a multiple"):
        optimize(
            reward_model,
            prompts,
            rloo.trainer_of,
            settings=SETTINGS.model_copy(update=changes),
            folder=tmp_path,
            previous=None,
        )
