"""How the policy and the critic move on a batch of experience.

The policy: passes of the clipped surrogate over minibatches, a single step of REINFORCE, or a trust region step. The
critic: passes of the clipped value loss. Each has its optimizer; a minibatch is computed a few rows at a time, weighted
so that the gradient is that of the mean over all of its actions: by several processes, or in smaller pieces once memory
ran out, the same step is taken. It samples nothing and knows no reward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, pvariance

import torch
from torch import Tensor, nn

from training.actor_critic import CRITIC, ActorCritic
from training.batching import passes_of
from training.lines import action_logprobs, lines_of, of_actions
from training.method import CANDIDATE
from training.out_of_memory import Accumulated, MicroBatch
from training.pairs import EncodedPair
from training.policy_losses import (
    clipped_policy_loss,
    clipped_value_loss,
    entropy,
    masked_mean,
    reinforce_loss,
)
from training.rollout import Rollout, by_action
from training.settings import TrainingSettings
from training.trust_region import Part, step_within_region

_MOST_GRADIENT = 1.0
_OF_A_PASS = {"cpu": 64, "cuda": 1024}
"""Tokens that could be computed in the time that a forward and backward pass takes for itself, whatever is in it."""
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
        self.generator = torch.Generator().manual_seed(settings.seed)
        self._processes = actors.base.processes
        rows = self._processes.rows_each(settings.batch_size, settings.gradient_accumulation)
        self._micro = MicroBatch(rows)
        self._policy = torch.optim.AdamW(actors.policy_parameters(), weight_decay=0.0)
        self._critic = torch.optim.AdamW(actors.critic_parameters(), weight_decay=0.0)
        self.parameters = [*actors.policy_parameters(), *actors.critic_parameters()]
        self.optimizers = (self._policy, self._critic)

    def learn_from(self, rollout: Rollout, *, learning_rate: float) -> dict[str, float]:
        """One iteration's updates of policy and critic; the means of what was seen on the way."""
        figures: Figures = defaultdict(list)
        for optimizer in self.optimizers:
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
        seen: Figures = defaultdict(list)

        def begin() -> None:
            self._policy.zero_grad()
            seen.clear()

        def body(some: list[int], share: float) -> None:
            _propagate(self._policy_loss(rollout, some, share, seen) * share)

        self._each(rollout.mask, rows, body, lengths=rollout.lengths, begin=begin)
        self._note(seen, figures)
        if self._settings.stop_kl and figures["policy/approxkl_avg"][-1] > self._settings.stop_kl:
            return False
        if self._ptx:
            figures["loss/ptx_avg"].append(self._ptx_pass())
        self._processes.add_up_gradients(self._actors.policy_parameters())
        norm = nn.utils.clip_grad_norm_(self._actors.policy_parameters(), _MOST_GRADIENT)
        figures["grad_norm"].append(float(norm))
        self._policy.step()
        return True

    def _policy_loss(self, rollout: Rollout, rows: list[int], share: float, seen: Figures) -> Tensor:
        """The mean loss over the actions of a micro-batch, with gradients; `seen` gets its part of the figures."""
        settings = self._settings
        lines = rollout.batch(rows, self._actors)
        distributions = self._actors.logits(lines).log_softmax(-1)
        logprobs = by_action(of_actions(distributions, lines), settings)
        old, advantages, mask = (
            tensor[rows, : logprobs.shape[1]]
            for tensor in (rollout.old_logprobs, rollout.advantages, rollout.mask)
        )
        found = clipped_policy_loss(logprobs, old, advantages, mask, clip=settings.clip_policy)
        loss = found.loss
        if settings.policy_update == "reinforce":
            loss = reinforce_loss(logprobs, advantages, mask)
        with torch.set_grad_enabled(settings.entropy_weight > 0):
            spread = masked_mean(entropy(distributions), lines.mask)
        seen["loss/policy_avg"].append(share * float(loss.detach()))
        seen["policy/approxkl_avg"].append(share * found.approximate_kl)
        seen["policy/clipfrac_avg"].append(share * found.clip_fraction)
        seen["policy/entropy_avg"].append(share * float(spread.detach()))
        seen["val/ratio"].append(share * found.ratio)
        return loss - settings.entropy_weight * spread if settings.entropy_weight else loss

    def _ptx_pass(self) -> float:
        """Add this process's part of the gradient of the PTX term: the negative log-likelihood a token of a few chosen
        replies, at temperature 1 (Ouyang et al. 2022, equation 2), which is returned."""
        size = min(self._settings.batch_size, len(self._ptx))
        chosen = [self._ptx[row] for row in torch.randperm(len(self._ptx), generator=self.generator)[:size]]
        base = self._actors.base
        seen: list[float] = []
        so_far = Accumulated(self._actors.policy_parameters())

        def begin() -> None:
            so_far.restore()
            seen.clear()

        def body(some: list[int], share: float) -> None:
            lines = lines_of(
                [chosen[row].prompt for row in some],
                [chosen[row].chosen for row in some],
                pad=base.tokenizer.pad_token_id,
                device=base.device,
            )
            logits = self._actors.logits(lines) * self._actors.temperature
            nll = -share * masked_mean(action_logprobs(logits, lines), lines.mask)
            _propagate(self._settings.ptx_weight * nll)
            seen.append(float(nll.detach()))

        tokens = torch.tensor([float(len(pair.chosen)) for pair in chosen])
        lengths = [len(pair.prompt) + len(pair.chosen) for pair in chosen]
        self._each(tokens, list(range(size)), body, lengths=lengths, begin=begin)
        return self._processes.totals({"nll": sum(seen)})["nll"]

    def _critic_step(self, rollout: Rollout, rows: list[int], figures: Figures) -> None:
        seen: Figures = defaultdict(list)

        def begin() -> None:
            self._critic.zero_grad()
            seen.clear()

        def body(some: list[int], share: float) -> None:
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

        self._each(rollout.mask, rows, body, lengths=rollout.lengths, begin=begin)
        self._note(seen, figures)
        self._processes.add_up_gradients(self._actors.critic_parameters())
        nn.utils.clip_grad_norm_(self._actors.critic_parameters(), _MOST_GRADIENT)
        self._critic.step()

    def _trust_region(self, rollout: Rollout, figures: Figures) -> None:
        """One step of `training.trust_region`."""

        def summed(weights: Tensor, part: Part, *, like: Tensor) -> Tensor:
            found: list[Tensor] = []

            def body(some: list[int], share: float) -> None:
                found.append(part(some, share))

            rows = list(range(len(rollout.replies)))
            self._each(weights, rows, body, lengths=rollout.lengths, begin=found.clear)
            total = torch.stack([torch.zeros_like(like), *found]).sum(0)
            self._processes.add_up([total])
            return total

        stepped, norm = step_within_region(self._actors, rollout, summed, settings=self._settings)
        figures["policy/approxkl_avg"].append(stepped.divergence)
        figures["policy/step_share"].append(stepped.share)
        figures["policy/surrogate_gain"].append(stepped.gained)
        figures["grad_norm"].append(norm)

    def _minibatches(self, rows: int) -> Iterator[list[int]]:
        """All rows in a new order, as many at a time as an optimizer step takes."""
        size = self._settings.batch_size * self._settings.gradient_accumulation
        order = torch.randperm(rows, generator=self.generator).tolist()
        for start in range(0, rows, size):
            yield order[start : start + size]

    def _each(
        self,
        weights: Tensor,
        rows: list[int],
        body: Callable[[list[int], float], None],
        *,
        lengths: Sequence[int],
        begin: Callable[[], None],
    ) -> None:
        """Give `body` this process's part of `rows`, a forward pass at a time, each with its share of all their
        `weights` (by row, or by row and action), so that shares of means add up to the mean over all. Rows of like
        length, of all the `lengths`, come together. It begins again with fewer rows a pass where memory runs out.
        """
        fixed = _OF_A_PASS.get(self._actors.base.device.type, 0)

        def work() -> None:
            whole = float(weights[rows].sum())
            places = passes_of([lengths[row] for row in rows], most=self._micro.rows, fixed=fixed)
            passes = [[rows[place] for place in some] for some in places]
            for some, counts in self._processes.dealt(passes):
                self._check()
                body(some, counts * float(weights[some].sum()) / whole)

        begin()
        self._micro.step(work, undo=begin, processes=self._processes)

    def _note(self, seen: Figures, figures: Figures) -> None:
        """Put the sums of what was seen, by all processes, into `figures`."""
        for name, value in self._processes.totals({name: sum(part) for name, part in seen.items()}).items():
            figures[name].append(value)


def _propagate(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
