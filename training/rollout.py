"""Experience: the policy answers prompts, and every reply gets its log-probabilities, values, score and advantages.

Log-probabilities of the policy are those that its tokens had when they were drawn; they are computed again only where
the machine's numbers are too coarse for that, which the first batch measures. Replies are sampled at one temperature
without a nucleus, so that the distribution that was sampled from is the one that ratios and divergences are of. It
trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.actor_critic import CRITIC, ActorCritic
from training.advantages import generalized_advantages, sequence_advantages, token_rewards
from training.generation import Decoding, sample_with_logprobs
from training.lines import Lines, action_logprobs, lines_of
from training.method import CANDIDATE
from training.out_of_memory import MicroBatch
from training.policy_losses import kl_terms, whiten
from training.reward_model import RewardModel
from training.settings import TrainingSettings

Ids = Sequence[int]
TOLERANCE = 1e-3
"""Nats a token by which a log-probability from the sampling may differ from one computed again, at most. A ratio is
then off by a thousandth, where the clipping acts on fifths."""


@dataclass(frozen=True)
class Rollout:
    """A batch of experience. `mask`, `old_logprobs`, `old_values`, `advantages` and `returns` are [rows, actions]:
    tokens, or one action a reply in sequence mode. `token_mask` is always by token. `figures` are the metrics of this
    batch.

    `difference` is the largest between sampled and recomputed log-probabilities, in nats; None where it was not
    measured.
    """

    prompts: list[list[int]]
    replies: list[list[int]]
    token_mask: Tensor
    mask: Tensor
    old_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    figures: dict[str, float]
    difference: float | None

    @property
    def lengths(self) -> list[int]:
        """Tokens of each prompt with its reply."""
        return [len(prompt) + len(reply) for prompt, reply in zip(self.prompts, self.replies, strict=True)]

    def batch(self, rows: Sequence[int], actors: ActorCritic) -> Lines:
        """Some of the rows, as lines."""
        pad, device = actors.base.tokenizer.pad_token_id, actors.base.device
        return lines_of(
            [self.prompts[row] for row in rows], [self.replies[row] for row in rows], pad=pad, device=device
        )


def collect(
    actors: ActorCritic,
    reward_model: RewardModel,
    prompts: Sequence[Ids],
    *,
    settings: TrainingSettings,
    seed: int,
    coefficient: float,
    recompute: bool | None,
    check: Callable[[], None] = lambda: None,
) -> Rollout:
    """Answer `prompts` once each and weigh the replies.

    `coefficient` is the price of a nat. `recompute` says whether to compute the policy's log-probabilities again; None:
    only if they turn out to differ by more than `TOLERANCE`, which is measured.
    """
    replies, sampled, ended = _answer(actors, prompts, settings=settings, seed=seed, check=check)
    pieces = _Pieces(actors, [list(prompt) for prompt in prompts], replies, rows=settings.batch_size)
    mask = pieces.mask
    old = pieces.padded(sampled)
    difference = None
    if recompute is not False:
        again = pieces.of(CANDIDATE, lambda lines: action_logprobs(actors.logits(lines), lines), check)
        difference = float((old - again).abs().max())
        if recompute or difference > TOLERANCE:
            old = again
    reference = pieces.of(actors.reference, lambda lines: action_logprobs(actors.logits(lines), lines), check)
    values = pieces.of(CRITIC, actors.values, check)
    scores = torch.tensor(reward_model.score(prompts, replies, check=check), device=old.device)
    scores = scores / reward_model.spread - settings.missing_eos_penalty * ~ended
    kl = torch.where(mask, kl_terms(old, reference, estimator=settings.kl_estimator), 0.0)
    rewards = token_rewards(scores, kl, mask, coefficient=coefficient)
    if settings.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    figures = _figures(old, reference, kl, scores, ended, mask, coefficient=coefficient)
    if settings.advantage == "sequence":
        advantages, returns = sequence_advantages(rewards, values, mask)
        whole = torch.ones_like(advantages, dtype=torch.bool)
        old, values, actions = old.sum(-1, keepdim=True), values[:, :1], whole
    else:
        decay = 1.0 if settings.policy_update == "reinforce" else settings.gae_decay
        advantages, returns = generalized_advantages(
            rewards, values, mask, discount=settings.discount, decay=decay
        )
        actions = mask
    if settings.whiten_advantages:
        advantages = whiten(advantages, actions)
    return Rollout(
        prompts=pieces.prompts,
        replies=replies,
        token_mask=mask,
        mask=actions,
        old_logprobs=old,
        old_values=values,
        advantages=advantages,
        returns=returns,
        figures=figures,
        difference=difference,
    )


def by_action(tokens: Tensor, settings: TrainingSettings) -> Tensor:
    """Log-probabilities [rows, tokens] as [rows, actions]: a whole reply's is the sum of its tokens'."""
    return tokens.sum(-1, keepdim=True) if settings.advantage == "sequence" else tokens


def _answer(
    actors: ActorCritic,
    prompts: Sequence[Ids],
    *,
    settings: TrainingSettings,
    seed: int,
    check: Callable[[], None],
) -> tuple[list[list[int]], list[list[float]], Tensor]:
    """The policy's replies, their tokens' log-probabilities, and which of them ended by themselves (bool [rows])."""
    decoding = Decoding(
        temperature=actors.temperature,
        top_p=1.0,
        max_new_tokens=settings.max_new_tokens,
        ends=actors.base.ends,
        pad=actors.base.tokenizer.pad_token_id,
        seed=seed,
    )
    with actors.speaking_as(CANDIDATE):
        sampled = sample_with_logprobs(
            actors.model, prompts, decoding=decoding, each_step=check, processes=actors.base.processes
        )
    ended = torch.tensor([reply.ids[-1] in decoding.ends for reply in sampled], device=actors.base.device)
    return [reply.ids for reply in sampled], [reply.drawn for reply in sampled], ended


class _Pieces:
    """All rows of a rollout, computed a few of like length at a time and put back as [rows, tokens]."""

    def __init__(
        self, actors: ActorCritic, prompts: list[list[int]], replies: list[list[int]], *, rows: int
    ) -> None:
        self._actors, self.prompts, self._replies, self._micro = actors, prompts, replies, MicroBatch(rows)
        self.mask = self.padded([[1.0] * len(reply) for reply in replies]).bool()

    def padded(self, values: Sequence[Sequence[float]]) -> Tensor:
        """Rows of numbers, one a token, as float32 [rows, tokens] with zeros behind."""
        width = max(len(reply) for reply in self._replies)
        rows = [[*row, *[0.0] * (width - len(row))] for row in values]
        return torch.tensor(rows, dtype=torch.float32, device=self._actors.base.device)

    def of(
        self, adapter: str | None, compute: Callable[[Lines], Tensor], check: Callable[[], None]
    ) -> Tensor:
        """What `compute` finds under `adapter`: [rows, tokens], zeros behind."""
        found = torch.zeros_like(self.mask, dtype=torch.float32)
        base = self._actors.base

        def fill(rows: list[int]) -> None:
            check()
            lines = lines_of(
                [self.prompts[row] for row in rows],
                [self._replies[row] for row in rows],
                pad=base.tokenizer.pad_token_id,
                device=base.device,
            )
            found[torch.tensor(rows, device=base.device), : lines.mask.shape[1]] = compute(lines)

        order = sorted(
            range(len(self.prompts)), key=lambda row: len(self.prompts[row]) + len(self._replies[row])
        )
        with self._actors.speaking_as(adapter):
            self._micro.over(base.processes.mine(order), fill)
        base.processes.add_up([found])
        return found


def _figures(
    old: Tensor,
    reference: Tensor,
    kl: Tensor,
    scores: Tensor,
    ended: Tensor,
    mask: Tensor,
    *,
    coefficient: float,
) -> dict[str, float]:
    """TRL's metrics of a batch of replies; see docs/ppo.md for each."""
    spent = -coefficient * kl.sum(-1)
    named: dict[str, Any] = {
        "objective/kl": torch.where(mask, old - reference, 0.0).sum(-1).mean(),
        "objective/entropy": -old.sum(-1).mean(),
        "objective/non_score_reward": spent.mean(),
        "objective/rlhf_reward": (spent + scores).mean(),
        "objective/scores": scores.mean(),
        "objective/tokens": mask.sum(-1).float().mean(),
        "objective/kl_coef": coefficient,
        "val/num_eos_tokens": ended.sum(),
    }
    return {name: float(value) for name, value in named.items()}
