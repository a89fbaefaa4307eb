"""A trust region step of the policy on a batch of experience: what `training.trpo` has to know of policy and replies.

The surrogate is mean(ratio * A); the bound is on the divergence from the policy as it stands, a token (k3 on the tokens
that were sampled); the divergence's Hessian is exact, by differentiating twice. It knows how the three are computed
for some rows; whoever calls it adds the rows up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.actor_critic import ActorCritic
from training.lines import Lines, action_logprobs
from training.policy_losses import kl_terms, masked_mean
from training.rollout import Rollout, by_action
from training.settings import TrainingSettings
from training.trpo import Stepped, Surroundings, flat_gradient, hessian_product, trust_region_step

Part = Callable[[list[int], float], Tensor]
"""From some rows, and their share of the whole, to their part of a sum."""


class Summed(Protocol):
    """The sum of `part` over all rows, which has the shape of `like`; shares are by `weights` [rows, actions]."""

    def __call__(self, weights: Tensor, part: Part, *, like: Tensor) -> Tensor: ...


def step_within_region(
    actors: ActorCritic, rollout: Rollout, summed: Summed, *, settings: TrainingSettings
) -> tuple[Stepped, float]:
    """Move the policy's matrices by one step; how it went, and the norm of the surrogate's gradient.

    The policy must be the adapter that speaks and learns.
    """
    parameters = actors.policy_parameters()
    sampled: dict[int, Tensor] = {}

    def slope(some: list[int], share: float) -> Tensor:
        lines = rollout.batch(some, actors)
        return flat_gradient(share * _surrogate(actors, rollout, some, lines, settings), parameters).detach()

    def fisher(vector: Tensor) -> Tensor:
        def bend(some: list[int], share: float) -> Tensor:
            lines = rollout.batch(some, actors)
            bent = share * masked_mean(_self_divergence(actors.logits(lines)), lines.mask)
            return hessian_product(bent, parameters, vector)

        # The fused attention kernels can be differentiated once only.
        with sdpa_kernel(SDPBackend.MATH):
            return summed(rollout.token_mask, bend, like=vector)

    def compare(some: list[int], share: float) -> Tensor:
        lines = rollout.batch(some, actors)
        now = action_logprobs(actors.logits(lines), lines)
        before = torch.zeros_like(now)
        for place, row in enumerate(some):
            size = len(rollout.replies[row])
            before[place, :size] = sampled.setdefault(row, now[place, :size])
        terms = torch.where(lines.mask, kl_terms(before, now, estimator="k3"), 0.0)
        surrogate = _surrogate(actors, rollout, some, lines, settings)
        return torch.stack([share * surrogate, terms.sum() * (share > 0)])

    def measure() -> tuple[float, float]:
        """The surrogate and the divergence (k3) from where `measure` was first called."""
        with torch.no_grad():
            found = summed(rollout.mask, compare, like=rollout.advantages.new_zeros(2))
        return float(found[0]), float(found[1]) / float(rollout.token_mask.sum())

    size = sum(parameter.numel() for parameter in parameters)
    gradient = summed(rollout.mask, slope, like=torch.zeros(size, device=actors.base.device))
    stepped = trust_region_step(
        parameters,
        Surroundings(gradient, fisher, measure),
        max_kl=settings.trust_region,
        damping=settings.trust_damping,
        iterations=settings.trust_iterations,
    )
    return stepped, float(gradient.norm())


def _surrogate(
    actors: ActorCritic, rollout: Rollout, rows: list[int], lines: Lines, settings: TrainingSettings
) -> Tensor:
    """mean(ratio * A) over the actions of some rows."""
    logprobs = by_action(action_logprobs(actors.logits(lines), lines), settings)
    mask, width = rollout.mask[rows], logprobs.shape[1]
    ratio = (logprobs - rollout.old_logprobs[rows, :width]).exp()
    return masked_mean(ratio * rollout.advantages[rows, :width], mask[:, :width])


def _self_divergence(logits: Tensor) -> Tensor:
    """KL(p || p) of each distribution, which is 0 and has the Fisher information as its Hessian in the second p."""
    logprobs = logits.log_softmax(-1)
    held = logprobs.detach()
    return (held.exp() * (held - logprobs)).sum(-1)
