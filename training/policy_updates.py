"""How the policy and the critic move on a batch of experience.

The policy: passes of the clipped surrogate over minibatches, a single step of REINFORCE, or a trust region step. The
critic: passes of the clipped value loss. Each has its optimizer; a minibatch is computed a few rows at a time, weighted
so that the gradient is that of the mean over all of its actions. It samples nothing and knows no reward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, pvariance

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.actor_critic import CRITIC, ActorCritic
from training.lines import Lines, action_logprobs, lines_of
from training.method import CANDIDATE
from training.pairs import EncodedPair
from training.policy_losses import (
    clipped_policy_loss,
    clipped_value_loss,
    entropy,
    kl_terms,
    masked_mean,
    reinforce_loss,
)
from training.rollout import Rollout, by_action
from training.settings import TrainingSettings
from training.trpo import Surroundings, flat_gradient, hessian_product, trust_region_step

_MOST_GRADIENT = 1.0
Figures = dict[str, list[float]]


class Learner:
    """The two optimizers: one moves the policy's LoRA matrices, one the critic's and the value head."""

    def __init__(
        self,
        actors: ActorCritic,
        ptx: Sequence[EncodedPair],
        *,
        settings: TrainingSettings,
        check: Callable[[], None],
    ) -> None:
        self._actors, self._settings, self._check = actors, settings, check
        self._ptx = list(ptx) if settings.ptx_weight else []
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._policy = torch.optim.AdamW(actors.policy_parameters(), weight_decay=0.0)
        self._critic = torch.optim.AdamW(actors.critic_parameters(), weight_decay=0.0)

    def learn_from(self, rollout: Rollout, *, learning_rate: float) -> dict[str, float]:
        """One iteration's updates of policy and critic; the means of what was seen on the way."""
        figures: Figures = defaultdict(list)
        for optimizer in (self._policy, self._critic):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        self._actors.learn_as(CANDIDATE)
        if self._settings.policy_update == "trpo":
            self._trust_region(rollout, figures)
        elif self._settings.policy_update == "reinforce":
            self._policy_step(rollout, list(range(len(rollout.replies))), figures)
        else:
            self._clipped_passes(rollout, figures)
        self._actors.learn_as(CRITIC)
        for _ in range(self._settings.ppo_epochs):
            for rows in self._minibatches(len(rollout.replies)):
                self._critic_step(rollout, rows, figures)
        means = {name: fmean(values) for name, values in figures.items()}
        if "val/ratio" in figures:
            means["val/ratio_var"] = pvariance(figures["val/ratio"])
        return means | {"lr": learning_rate, "policy/updates": float(len(figures["grad_norm"]))}

    def _clipped_passes(self, rollout: Rollout, figures: Figures) -> None:
        """Passes over the replies, until there were enough or the policy has moved too far from the one that
        sampled."""
        for _ in range(self._settings.ppo_epochs):
            for rows in self._minibatches(len(rollout.replies)):
                if not self._policy_step(rollout, rows, figures):
                    return

    def _policy_step(self, rollout: Rollout, rows: list[int], figures: Figures) -> bool:
        """One optimizer step on `rows`, in micro-batches; False, and no step, where `stop_kl` is passed."""
        self._policy.zero_grad()
        seen: Figures = defaultdict(list)
        for some, share in self._microbatches(rollout.mask, rows):
            loss = self._policy_loss(rollout, some, share, seen)
            _propagate(loss * share)
        moved = sum(seen["policy/approxkl_avg"])
        for name, values in seen.items():
            figures[name].append(sum(values))
        if self._settings.stop_kl and moved > self._settings.stop_kl:
            return False
        if self._ptx:
            nll = self._ptx_loss()
            _propagate(self._settings.ptx_weight * nll)
            figures["loss/ptx_avg"].append(float(nll.detach()))
        norm = nn.utils.clip_grad_norm_(self._actors.policy_parameters(), _MOST_GRADIENT)
        figures["grad_norm"].append(float(norm))
        self._policy.step()
        return True

    def _policy_loss(self, rollout: Rollout, rows: list[int], share: float, seen: Figures) -> Tensor:
        """The mean loss over the actions of a micro-batch, with gradients; `seen` gets its part of the figures."""
        settings = self._settings
        lines = rollout.batch(rows, self._actors)
        logits = self._actors.logits(lines)
        logprobs = by_action(action_logprobs(logits, lines), settings)
        old, advantages, mask = (
            tensor[rows, : logprobs.shape[1]]
            for tensor in (rollout.old_logprobs, rollout.advantages, rollout.mask)
        )
        found = clipped_policy_loss(logprobs, old, advantages, mask, clip=settings.clip_policy)
        loss = found.loss
        if settings.policy_update == "reinforce":
            loss = reinforce_loss(logprobs, advantages, mask)
        with torch.set_grad_enabled(settings.entropy_weight > 0):
            spread = masked_mean(entropy(logits), lines.mask)
        seen["loss/policy_avg"].append(share * float(loss.detach()))
        seen["policy/approxkl_avg"].append(share * found.approximate_kl)
        seen["policy/clipfrac_avg"].append(share * found.clip_fraction)
        seen["policy/entropy_avg"].append(share * float(spread.detach()))
        seen["val/ratio"].append(share * found.ratio)
        return loss - settings.entropy_weight * spread if settings.entropy_weight else loss

    def _ptx_loss(self) -> Tensor:
        """Negative log-likelihood a token of a few chosen replies, at temperature 1 (Ouyang et al. 2022, equation
        2)."""
        size = min(self._settings.batch_size, len(self._ptx))
        chosen = [self._ptx[row] for row in torch.randperm(len(self._ptx), generator=self._generator)[:size]]
        base = self._actors.base
        lines = lines_of(
            [pair.prompt for pair in chosen],
            [pair.chosen for pair in chosen],
            pad=base.tokenizer.pad_token_id,
            device=base.device,
        )
        logits = self._actors.logits(lines) * self._actors.temperature
        return -masked_mean(action_logprobs(logits, lines), lines.mask)

    def _critic_step(self, rollout: Rollout, rows: list[int], figures: Figures) -> None:
        self._critic.zero_grad()
        seen: Figures = defaultdict(list)
        for some, share in self._microbatches(rollout.mask, rows):
            values = self._actors.values(rollout.batch(some, self._actors))
            values = values[:, : rollout.mask.shape[1]]
            old, returns, mask = (
                tensor[some, : values.shape[1]]
                for tensor in (rollout.old_values, rollout.returns, rollout.mask)
            )
            loss, clipped = clipped_value_loss(values, old, returns, mask, clip=self._settings.clip_value)
            _propagate(loss * share)
            seen["loss/value_avg"].append(share * float(loss.detach()))
            seen["val/clipfrac_avg"].append(share * clipped)
        for name, parts in seen.items():
            figures[name].append(sum(parts))
        nn.utils.clip_grad_norm_(self._actors.critic_parameters(), _MOST_GRADIENT)
        self._critic.step()

    def _trust_region(self, rollout: Rollout, figures: Figures) -> None:
        """One step of `training.trpo` on the surrogate mean(ratio * A), with the divergence a token as the bound."""
        actors, settings, parameters = self._actors, self._settings, self._actors.policy_parameters()
        rows = list(range(len(rollout.replies)))

        def surrogate(some: list[int], lines: Lines) -> Tensor:
            logprobs = by_action(action_logprobs(actors.logits(lines), lines), settings)
            mask, width = rollout.mask[some], logprobs.shape[1]
            ratio = (logprobs - rollout.old_logprobs[some, :width]).exp()
            return masked_mean(ratio * rollout.advantages[some, :width], mask[:, :width])

        def fisher(vector: Tensor) -> Tensor:
            product = torch.zeros_like(vector)
            # The fused attention kernels can be differentiated once only.
            with sdpa_kernel(SDPBackend.MATH):
                for some, share in self._microbatches(rollout.token_mask, rows):
                    lines = rollout.batch(some, actors)
                    bend = share * masked_mean(_self_divergence(actors.logits(lines)), lines.mask)
                    product += hessian_product(bend, parameters, vector)
            return product

        sampled: list[tuple[Lines, Tensor]] = []

        def measure() -> tuple[float, float]:
            """The surrogate and the divergence (k3) from where `measure` was first called."""
            gained = moved = 0.0
            with torch.no_grad():
                for at, (some, share) in enumerate(self._microbatches(rollout.mask, rows)):
                    lines = rollout.batch(some, actors)
                    gained += share * float(surrogate(some, lines))
                    now = action_logprobs(actors.logits(lines), lines)
                    if len(sampled) == at:
                        sampled.append((lines, now))
                    terms = kl_terms(sampled[at][1], now, estimator="k3")
                    moved += float(torch.where(lines.mask, terms, 0.0).sum())
            return gained, moved / float(rollout.token_mask.sum())

        gradient = torch.zeros(sum(parameter.numel() for parameter in parameters), device=actors.base.device)
        for some, share in self._microbatches(rollout.mask, rows):
            lines = rollout.batch(some, actors)
            gradient += flat_gradient(share * surrogate(some, lines), parameters).detach()
        stepped = trust_region_step(
            parameters,
            Surroundings(gradient, fisher, measure),
            max_kl=settings.trust_region,
            damping=settings.trust_damping,
            iterations=settings.trust_iterations,
        )
        figures["policy/approxkl_avg"].append(stepped.divergence)
        figures["policy/step_share"].append(stepped.share)
        figures["policy/surrogate_gain"].append(stepped.gained)
        figures["grad_norm"].append(float(gradient.norm()))

    def _minibatches(self, rows: int) -> Iterator[list[int]]:
        """All rows in a new order, as many at a time as an optimizer step takes."""
        size = self._settings.batch_size * self._settings.gradient_accumulation
        order = torch.randperm(rows, generator=self._generator).tolist()
        for start in range(0, rows, size):
            yield order[start : start + size]

    def _microbatches(self, mask: Tensor, rows: list[int]) -> Iterator[tuple[list[int], float]]:
        """`rows` a forward pass at a time, each with its share of all their actions, so that shares of means add up to
        the mean over all."""
        actions = float(mask[rows].sum())
        for start in range(0, len(rows), self._settings.batch_size):
            self._check()
            some = rows[start : start + self._settings.batch_size]
            yield some, float(mask[some].sum()) / actions


def _self_divergence(logits: Tensor) -> Tensor:
    """KL(p || p) of each distribution, which is 0 and has the Fisher information as its Hessian in the second p."""
    logprobs = logits.log_softmax(-1)
    held = logprobs.detach()
    return (held.exp() * (held - logprobs)).sum(-1)


def _propagate(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
