"""The settings of the reward model and of the policy optimization that uses it.

Extends the storage settings; `training.settings` extends these. Defaults are near what was tried on the shipped base
model: docs/ppo.md says what was measured, and what was not. This module loads no model.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from memory.settings import StorageSettings

RewardPooling = Literal["last", "mean"]


class PolicySettings(StorageSettings):
    """What `training.reward_model` and `training.ppo` need beyond what every method needs."""

    reward_model: str = ""
    """Folder of a reward model that `python -m training.reward_model` saved, for PPO. Empty: one is fitted first."""

    reward_learning_rate: float = Field(1e-3, gt=0.0)
    """Reward model: peak learning rate of AdamW."""

    reward_epochs: float = Field(4.0, gt=0.0)
    """Reward model: passes over people's judgements."""

    reward_pooling: RewardPooling = "last"
    """Reward model: what its head reads, the last token of a reply (last) or the mean of all (mean)."""

    reward_phrases: int = Field(0, ge=0, le=8)
    """Reward model: longest run of tokens that may be worth something by itself, beside what the base sees; 0 for none.
    For thousands of judgements on a small base."""

    reward_margin: float = Field(0.5, gt=0.0)
    """Reward model: the lead in log-odds that a preferred reply should have, and the band within which a rater calls
    two replies equal (Rao and Kupper 1967)."""

    rater_weighting: Literal["judgement", "rater"] = "judgement"
    """Reward model: whether every judgement weighs the same, or every rater."""

    min_reward_accuracy: float = Field(0.6, ge=0.0, le=1.0)
    """PPO, RLOO and GRPO begin only with a reward model that orders this share of held-out comparisons as people did,
    and surely (95 %) more than half."""

    group_size: int = Field(8, ge=2)
    """RLOO and GRPO: replies sampled to each prompt, which are compared with each other; divides rollout_size."""

    group_iterations: int = Field(24, ge=1)
    """RLOO and GRPO: how often replies are sampled and learned from."""

    group_learning_rate: float = Field(1e-3, gt=0.0)
    """RLOO and GRPO: peak learning rate of AdamW."""

    policy_update: Literal["ppo", "reinforce", "trpo"] = "ppo"
    """How the policy moves: ppo (clipped surrogate), reinforce (with the critic as baseline) or trpo (one step within a
    trust region)."""

    advantage: Literal["token", "sequence"] = "token"
    """What an action is: each token (generalized advantage estimation) or the whole reply."""

    ppo_iterations: int = Field(8, ge=1)
    """PPO: how often replies are sampled and learned from."""

    rollout_size: int = Field(32, ge=2)
    """PPO: replies sampled in each iteration."""

    ppo_epochs: int = Field(2, ge=1)
    """PPO: passes over the replies of an iteration; the policy takes a single step in reinforce and trpo."""

    ppo_learning_rate: float = Field(1e-3, gt=0.0)
    """PPO: peak learning rate of AdamW, for policy and critic."""

    rollout_temperature: float = Field(1.0, gt=0.0, le=2.0)
    """PPO: temperature of the sampling, without a nucleus; ratios and divergences are those of this distribution."""

    clip_policy: float = Field(0.2, gt=0.0, lt=1.0)
    """PPO: how far a ratio of probabilities may move from 1 and still be learned from."""

    clip_value: float = Field(0.2, gt=0.0)
    """PPO: how far a value may move from what it was when the replies were sampled."""

    entropy_weight: float = Field(0.0, ge=0.0)
    """PPO: weight of the entropy bonus."""

    ptx_weight: float = Field(0.5, ge=0.0)
    """PPO: weight of the negative log-likelihood of chosen replies (the PTX term of Ouyang et al. 2022)."""

    kl_coefficient: float = Field(0.05, ge=0.0)
    """PPO: price of a nat of divergence from the reference, in units of reward."""

    kl_estimator: Literal["k1", "k3"] = "k1"
    """PPO: estimator of the divergence at each token, in the reward."""

    kl_target: float = Field(0.0, ge=0.0)
    """PPO: nats a reply towards which the price is steered (Ziegler et al. 2019); 0 keeps it fixed."""

    kl_horizon: int = Field(1000, ge=1)
    """PPO: replies over which that steering acts."""

    stop_kl: float = Field(0.05, ge=0.0)
    """PPO: an iteration's passes end once the policy has moved this many nats a token from the one that sampled; 0
    never ends them."""

    discount: float = Field(1.0, gt=0.0, le=1.0)
    """PPO: gamma of the advantages."""

    gae_decay: float = Field(0.95, ge=0.0, le=1.0)
    """PPO: lambda of the advantages (reinforce takes 1)."""

    whiten_rewards: bool = False
    """PPO: scale the rewards of an iteration to variance 1, keeping their mean."""

    whiten_advantages: bool = True
    """PPO: shift and scale the advantages of an iteration to mean 0 and variance 1."""

    missing_eos_penalty: float = Field(1.0, ge=0.0)
    """PPO: taken off the score of a reply that the length limit cut off."""

    trust_region: float = Field(0.01, gt=0.0)
    """TRPO: most nats a token that a step may move the policy."""

    trust_iterations: int = Field(10, ge=1)
    """TRPO: conjugate gradient iterations for a step."""

    trust_damping: float = Field(0.1, ge=0.0)
    """TRPO: added to the divergence's curvature."""
