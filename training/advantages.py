"""From rewards and values to advantages and returns: by token (GAE) or for a reply as one action.

Pure functions of [rows, tokens] tensors whose replies begin at column 0 and are padded on the right; the mask says
where they are. It knows no model and no loss.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, coefficient: float) -> Tensor:
    """Rewards [rows, tokens]: -coefficient * KL at every token, and the score [rows] at each reply's last one.

    This is the reward of Ouyang et al. 2022, equation 2, spread over the tokens that earn it.
    """
    rewards = torch.where(mask, -coefficient * kl, 0.0)
    last = mask.sum(-1) - 1
    if bool((last < 0).any()):
        raise ValueError("A reply is empty; every row needs one token to be rewarded at.")
    return rewards.scatter_add(-1, last[:, None], scores[:, None].to(rewards.dtype))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, decay: float
) -> tuple[Tensor, Tensor]:
    """(advantages, returns) [rows, tokens] by generalized advantage estimation (Schulman et al. 2016, equation 16).

    delta_t = r_t + discount * V_{t+1} - V_t  and  A_t = delta_t + discount * decay * A_{t+1}, both 0 after the reply's
    last token; returns are A + V. `values` are V of the state before each token. `decay` 1 gives the whole return minus
    its baseline (REINFORCE), 0 the one-step error.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    value_after = torch.zeros_like(following)
    for step in reversed(range(rewards.shape[1])):
        inside = mask[:, step]
        delta = rewards[:, step] + discount * value_after - values[:, step]
        following = torch.where(inside, delta + discount * decay * following, 0.0)
        value_after = torch.where(inside, values[:, step], 0.0)
        advantages[:, step] = following
    return advantages, torch.where(mask, advantages + values, 0.0)


def sequence_advantages(rewards: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(advantages, returns) [rows, 1] of whole replies: all that a reply earned, and that minus V of its prompt.

    A reply is one action of a bandit (Ahmadian et al. 2024, section 3), so nothing is discounted inside it.
    """
    returns = torch.where(mask, rewards, 0.0).sum(-1, keepdim=True)
    return returns - values[:, :1], returns
