"""PPO on a tiny real model: what moves and what does not, what is kept from the sampling, and how it ends early."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from judged import fill_ledger, quick_settings
from tiny import save_tiny_base
from torch import nn

from memory.database import open_database
from memory.ledger import Ledger
from memory.runs import Runs
from memory.schema import Message
from training.actor_critic import CRITIC, beside
from training.base import load_base
from training.execution import EXIT_CODES
from training.gate import decide
from training.generation import Decoding, sample, sample_with_logprobs, speaking_as, token_logprobs
from training.groundwork import encode_prompts
from training.lines import action_logprobs
from training.method import CANDIDATE, REFERENCE, NothingToLearn, TrainingDiverged, adapter_parameters
from training.metrics import read_metrics
from training.pairs import EncodedPair
from training.policy_updates import Learner
from training.ppo import optimize
from training.prompt import encode_prompt
from training.publishing import save_candidate
from training.reward_fitting import EncodedOrdering, fit
from training.reward_model import REWARD, RewardModel
from training.rollout import TOLERANCE, collect
from training.run import main
from training.settings import TrainingSettings

QUICK = {
    "batch_size": 4,
    "rollout_size": 8,
    "ppo_iterations": 2,
    "ppo_epochs": 2,
    "ppo_learning_rate": 1e-2,
    "stop_kl": 0.0,
    "max_new_tokens": 8,
}
SETTINGS = quick_settings(**QUICK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


def base_of(folder):
    return load_base(SETTINGS.model_copy(update={"model": str(folder)}))


@pytest.fixture
def base(folder):
    return base_of(folder)


def prompts_of(base, count=8):
    return [encode_prompt(base.tokenizer, [Message("user", f"Tea {n}?")]) for n in range(count)]


def fitted(base, settings=SETTINGS):
    """A reward model that has seen two pairs."""
    prompt = tuple(prompts_of(base, 1)[0])
    pairs = [((40, 41, 2), (50, 2)), ((42, 2), (51, 52, 2))]
    quick = settings.model_copy(update={"min_steps": 2, "reward_epochs": 0.1, "reward_learning_rate": 1e-2})
    return fit(base, [EncodedOrdering(prompt, pair, False, 1.0) for pair in pairs], settings=quick)


def actors_of(base, settings=SETTINGS, previous=None):
    reward_model = fitted(base, settings)
    return beside(reward_model, settings=settings, previous=previous), reward_model


def changed(**changes):
    return quick_settings(**{**QUICK, **changes})


def tensors(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


PTX = [EncodedPair((1, 40, 41), (60, 61, 2), (62, 2)), EncodedPair((1, 40), (63, 2), (64, 2))]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"advantage": "sequence", "kl_estimator": "k3", "entropy_weight": 0.01},
        {"policy_update": "reinforce", "whiten_rewards": True},
        {"policy_update": "trpo", "trust_iterations": 3},
    ],
    ids=["ppo", "sequence", "reinforce", "trpo"],
)
def test_every_tensor_of_policy_and_critic_moves_and_nothing_else_does(base, changes):
    settings = changed(ppo_iterations=3, **changes)
    actors, reward_model = actors_of(base, settings)
    before, head = tensors(actors.model), actors.value_head.weight.detach().clone()
    optimize(actors, reward_model, prompts_of(base), ptx=PTX, settings=settings)
    after = tensors(actors.model)
    assert before.keys() == after.keys()
    for name, value in before.items():
        trained = f".{CANDIDATE}." in name or f".{CRITIC}." in name
        assert torch.equal(value, after[name]) != trained, name
    assert sum(f".{CANDIDATE}." in name for name in after) == 2 * 7 * base.model.config.num_hidden_layers
    assert not torch.equal(head, actors.value_head.weight)


def test_the_first_ratio_is_one_and_the_first_divergence_nothing(base):
    """A fresh policy is its reference: KL 0, and before the first step every probability is what was sampled."""
    actors, reward_model = actors_of(base)
    rollout = experience(actors, reward_model)
    assert rollout.figures["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    settings = changed(ppo_epochs=1, ptx_weight=0.0, batch_size=8)
    found = Learner(actors, [], settings=settings, check=lambda: None).learn_from(rollout, learning_rate=0.0)
    assert found["val/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert found["policy/approxkl_avg"] == pytest.approx(0.0, abs=1e-8)
    assert found["policy/clipfrac_avg"] == 0.0
    assert found["loss/policy_avg"] == pytest.approx(-mean(rollout.advantages, rollout.mask), abs=1e-5)


def mean(values, mask):
    return float(values[mask].mean())


def experience(actors, reward_model, settings=SETTINGS, **others):
    choices = {"seed": 1, "coefficient": 0.1, "recompute": None, **others}
    prompts = prompts_of(actors.base, settings.rollout_size)
    return collect(actors, reward_model, prompts, settings=settings, **choices)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_kept_from_the_sampling_are_those_computed_again(base, temperature):
    settings = changed(rollout_temperature=temperature)
    actors, reward_model = actors_of(base, settings)
    kept, again = (experience(actors, reward_model, settings, recompute=choice) for choice in (False, True))
    assert kept.difference is None
    assert again.difference < TOLERANCE
    assert torch.allclose(kept.old_logprobs, again.old_logprobs, atol=1e-4)
    lines = kept.batch(range(settings.rollout_size), actors)
    with actors.speaking_as(CANDIDATE):
        straight = action_logprobs(actors.logits(lines), lines)
    assert torch.allclose(kept.old_logprobs, straight, atol=1e-4)


def test_drawn_and_plain_log_probabilities_of_a_sampled_reply(base):
    """With temperature and nucleus a token was likelier drawn than the policy's own probability of it says, or as
    likely; without either both are one. The replies are those of `sample`.
    """
    prompts = prompts_of(base, 3)
    ends, pad = base.ends, base.tokenizer.pad_token_id
    plain = Decoding(1.0, 1.0, 8, ends, pad, seed=3)
    with speaking_as(base.model, None):
        for reply in sample_with_logprobs(base.model, prompts, decoding=plain):
            assert reply.drawn == pytest.approx(reply.plain, abs=1e-5)
        cut = replace(plain, temperature=0.6, top_p=0.8)
        sampled = sample_with_logprobs(base.model, prompts, decoding=cut)
        assert [reply.ids for reply in sampled] == sample(base.model, prompts, decoding=cut)
        scores = token_logprobs(base.model, prompts, [reply.ids for reply in sampled], pad=pad)
        greedy = sample_with_logprobs(base.model, prompts, decoding=replace(plain, temperature=0.0))
    for reply, score in zip(sampled, scores, strict=True):
        assert reply.plain == pytest.approx(score.tolist(), abs=1e-4)
        assert all(drawn <= 0 for drawn in reply.drawn)
        assert sum(reply.drawn) > sum(reply.plain)
    assert all(drawn == 0 for reply in greedy for drawn in reply.drawn)


def test_scores_are_rewards_by_their_spread_less_the_penalty_for_being_cut_off(base):
    settings = changed(missing_eos_penalty=2.5)
    actors, reward_model = actors_of(base, settings)
    rollout = experience(actors, reward_model, settings)
    rewards = reward_model.score(rollout.prompts, rollout.replies)
    ended = [reply[-1] in base.ends for reply in rollout.replies]
    assert not all(ended)
    scores = [r / reward_model.spread - 2.5 * (not e) for r, e in zip(rewards, ended, strict=True)]
    assert rollout.figures["objective/scores"] == pytest.approx(sum(scores) / len(scores), abs=1e-4)
    assert rollout.figures["val/num_eos_tokens"] == sum(ended)
    assert rollout.figures["objective/rlhf_reward"] == pytest.approx(
        rollout.figures["objective/scores"] + rollout.figures["objective/non_score_reward"], abs=1e-4
    )


def test_the_critic_begins_as_the_reward_model_read_at_every_token(base):
    """Its value behind the last token but one is the score of the reply cut there."""
    actors, reward_model = actors_of(base)
    rollout = experience(actors, reward_model)
    row = max(range(len(rollout.replies)), key=lambda at: len(rollout.replies[at]))
    prompt, reply = rollout.prompts[row], rollout.replies[row]
    score = reward_model.score([prompt], [reply[:-1]])[0] / reward_model.spread
    assert float(rollout.old_values[row, len(reply) - 1]) == pytest.approx(score, abs=1e-4)


def test_without_a_coefficient_and_with_decay_one_every_return_is_the_score(base):
    settings = changed(policy_update="reinforce", whiten_advantages=False, missing_eos_penalty=0.0)
    actors, reward_model = actors_of(base, settings)
    rollout = experience(actors, reward_model, settings, coefficient=0.0)
    scores = torch.tensor(reward_model.score(rollout.prompts, rollout.replies)) / reward_model.spread
    expected = scores[:, None].expand_as(rollout.mask)[rollout.mask]
    assert torch.allclose(rollout.returns[rollout.mask], expected, atol=1e-4)


def test_a_policy_that_moved_too_far_stops_its_passes(base):
    actors, reward_model = actors_of(base)
    rollout = experience(actors, reward_model)
    eager = changed(ppo_epochs=8, stop_kl=1e-4, ptx_weight=0.0)
    found = Learner(actors, [], settings=eager, check=lambda: None).learn_from(rollout, learning_rate=1e-2)
    assert 1 <= found["policy/updates"] < 16
    calm = changed(ppo_epochs=8, stop_kl=0.0, ptx_weight=0.0)
    found = Learner(actors, [], settings=calm, check=lambda: None).learn_from(rollout, learning_rate=1e-4)
    assert found["policy/updates"] == 16


def test_micro_batches_add_up_to_the_gradient_of_the_whole(base):
    """One step of a minibatch of 8 rows of unlike lengths, computed 8 rows and 2 rows at a time."""
    actors, reward_model = actors_of(base)
    rollout = experience(actors, reward_model)
    gradients = []
    for size, passes in ((8, 1), (2, 4)):
        settings = changed(batch_size=size, gradient_accumulation=passes, ppo_epochs=1, ptx_weight=0.0)
        learner = Learner(actors, [], settings=settings, check=lambda: None)
        learner.learn_from(rollout, learning_rate=0.0)
        gradients.append([parameter.grad.clone() for parameter in actors.policy_parameters()])
    for whole, parts in zip(*gradients, strict=True):
        assert torch.allclose(whole, parts, atol=1e-5)


def test_a_trust_region_step_gains_and_keeps_within_its_bound(base):
    settings = changed(policy_update="trpo", trust_region=0.005, trust_iterations=5)
    actors, reward_model = actors_of(base, settings)
    rollout = experience(actors, reward_model, settings)
    found = Learner(actors, [], settings=settings, check=lambda: None).learn_from(rollout, learning_rate=1e-3)
    assert found["policy/surrogate_gain"] > 0
    assert 0 < found["policy/approxkl_avg"] <= 0.005
    assert 0 < found["policy/step_share"] <= 1


def mean_of(values):
    return sum(values) / len(values)


class PrefersToken(nn.Module):
    """Stands where a reward model stands: the share of a reply's tokens that are even."""

    spread = 1.0

    def score(self, prompts, replies, *, check=lambda: None):
        return [sum(token % 2 == 0 for token in reply) / len(reply) for reply in replies]


def test_the_score_rises(base):
    """A reward that is easily had: from about half of the tokens being even to more."""
    settings = changed(
        seed=2,
        ppo_iterations=12,
        rollout_size=32,
        batch_size=16,
        kl_coefficient=0.0,
        missing_eos_penalty=0.0,
        ptx_weight=0.0,
    )
    actors, _ = actors_of(base, settings)
    scores = []
    optimize(
        actors,
        PrefersToken(),
        prompts_of(base),
        ptx=[],
        settings=settings,
        on_step=lambda step: scores.append(step.values["objective/scores"]),
    )
    assert mean_of(scores[-3:]) > mean_of(scores[:3]) + 0.05


def test_the_price_of_divergence_is_steered(base):
    settings = changed(kl_target=1000.0, kl_horizon=8, kl_coefficient=0.1, ppo_iterations=2)
    actors, reward_model = actors_of(base, settings)
    prices = []
    optimize(
        actors,
        reward_model,
        prompts_of(base),
        ptx=[],
        settings=settings,
        on_step=lambda step: prices.append(step.values["objective/kl_coef"]),
    )
    assert prices == pytest.approx([0.1, 0.08])


def test_the_same_seed_gives_the_same_policy(folder):
    found = []
    for base in (base_of(folder), base_of(folder)):
        actors, reward_model = actors_of(base)
        optimize(actors, reward_model, prompts_of(base), ptx=PTX, settings=SETTINGS)
        found.append(actors.policy_parameters())
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_continuing_an_adapter_takes_it_as_the_reference(folder, tmp_path):
    base = base_of(folder)
    actors, reward_model = actors_of(base)
    optimize(actors, reward_model, prompts_of(base), ptx=PTX, settings=SETTINGS)
    saved = save_candidate(actors.policy_alone(), tmp_path / "first")
    assert set(actors.model.peft_config) == {CANDIDATE}
    again = base_of(folder)
    actors, reward_model = actors_of(again, previous=saved)
    rollout = experience(actors, reward_model)
    assert rollout.figures["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    kept = [value.clone() for value in adapter_parameters(actors.model, REFERENCE)]
    assert all(torch.equal(a, b) for a, b in zip(kept, actors.policy_parameters(), strict=True))
    optimize(actors, reward_model, prompts_of(again), ptx=PTX, settings=SETTINGS)
    assert all(
        torch.equal(a, b) for a, b in zip(kept, adapter_parameters(actors.model, REFERENCE), strict=True)
    )
    assert not any(torch.equal(a, b) for a, b in zip(kept, actors.policy_parameters(), strict=True))


def test_numbers_that_are_none_end_it_with_advice(base):
    settings = changed(ppo_learning_rate=1e30, ppo_iterations=4)
    actors, reward_model = actors_of(base, settings)
    with pytest.raises((TrainingDiverged, RuntimeError), match=r"Lower ppo_learning_rate|inf|nan"):
        optimize(actors, reward_model, prompts_of(base), ptx=PTX, settings=settings)


def test_prompts_without_room_for_a_reply_are_left_out(base):
    long, short = (Message("user", "tea " * 400),), (Message("user", "Tea?"),)
    settings: TrainingSettings = SETTINGS
    assert len(encode_prompts(base, [long, short], settings=settings)) == 1
    with pytest.raises(NothingToLearn, match="Raise context_tokens"):
        encode_prompts(base, [long], settings=settings)


FLAGS = ["--method", "ppo", "--quantization", "none", "--context-tokens", "256", "--max-new-tokens", "8"]
FLAGS += ["--min-steps", "20", "--reward-learning-rate", "0.01", "--reward-epochs", "1", "--lora-rank", "2"]
FLAGS += ["--eval-prompts", "4", "--min-comparisons", "12", "--ppo-iterations", "2", "--rollout-size", "8"]
FLAGS += ["--judged-pairs", "0", "--min-heldout-pairs", "2"]


@pytest.fixture
def ledger(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'thumbprint.db'}")
    fill_ledger(database, comparisons=60)
    yield database
    database.close()


def test_a_whole_iteration_by_ppo(ledger, tmp_path, folder, capsys, monkeypatch):
    """To its end, whatever the gate thinks of a random model: every check is made, and the answer is yes."""
    monkeypatch.setattr(
        "training.iteration.decide", lambda report, settings: replace(decide(report, settings), promote=True)
    )
    flags = ["--data-dir", str(tmp_path), "--model", str(folder), *FLAGS]
    code = main(flags)
    (run,) = Runs(ledger).list()
    assert code == EXIT_CODES["published"], capsys.readouterr()
    assert (run.method, run.state, run.version) == ("ppo", "published", "v0001")
    lines = read_metrics(tmp_path / "runs" / run.id / "metrics.jsonl")
    ours = [line for line in lines if "objective/kl" in line]
    assert len(ours) == 2
    assert [line["step"] for line in ours] == [lines[-1]["total_steps"] - 1, lines[-1]["total_steps"]]
    named = {"objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward"}
    named |= {"objective/scores", "policy/approxkl_avg", "policy/clipfrac_avg", "loss/policy_avg"}
    named |= {"loss/value_avg", "val/clipfrac_avg", "policy/entropy_avg", "val/ratio", "val/ratio_var"}
    named |= {"val/num_eos_tokens", "lr", "episode"}
    assert all(named <= line.keys() and math.isfinite(line["objective/kl"]) for line in ours)
    assert [line for line in lines if "reward_model/loss" in line]
    reward, _ = RewardModel.load(base_of(folder), tmp_path / "runs" / run.id / "reward_model")
    assert set(reward.model.peft_config) == {REWARD}


def test_below_the_bar_there_is_no_ppo_and_the_run_says_why(ledger, tmp_path, folder):
    flags = ["--data-dir", str(tmp_path), "--model", str(folder), *FLAGS, "--min-steps", "1"]
    flags += ["--reward-learning-rate", "1e-20", "--reward-epochs", "0.01"]
    assert main(flags) == EXIT_CODES["refused"]
    (run,) = Runs(ledger).list()
    assert run.state == "refused"
    assert "The reward model is not" in run.message
    assert "--method dpo" in run.message
    assert Ledger(ledger).comparisons()
