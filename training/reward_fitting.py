"""Fits a reward model on what people said, and examines it on what it did not see.

Pairs and ties by Bradley-Terry with a margin, rankings by their neighbours, all weighted by rater
(`training.preference_losses`). It takes orderings and gives back a `RewardModel` over the same frozen base; it reads no
ledger, writes no file and does not say what is good enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.base import BaseModel
from training.batching import LikeLengths
from training.method import Step, TrainingDiverged, adapter_parameters, lora_config
from training.orderings import Ordering, rater_weights
from training.pairs import encode_completion
from training.preference_losses import listwise_loss, pairwise_losses, weighted_mean
from training.prompt import encode_prompt
from training.reward_model import REWARD, RewardModel, new_head
from training.reward_validation import RewardReport, Scored, validate
from training.settings import TrainingSettings

_MOST_GRADIENT = 1.0
_WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class EncodedOrdering:
    """An ordering as token ids, best first, with the weight of its rater."""

    prompt: tuple[int, ...]
    replies: tuple[tuple[int, ...], ...]
    tied: bool
    weight: float

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest reply."""
        return len(self.prompt) + max(len(reply) for reply in self.replies)


def encode_orderings(
    base: BaseModel, orderings: Sequence[Ordering], *, settings: TrainingSettings
) -> list[EncodedOrdering]:
    """The orderings that fit the context, as ids, in their order and weighted by rater; a long one is left out
    whole."""
    weights = rater_weights(orderings, settings.rater_weighting)
    context = min(base.context_tokens, settings.context_tokens)
    encoded = [
        EncodedOrdering(
            prompt=tuple(encode_prompt(base.tokenizer, ordering.prompt)),
            replies=tuple(
                encode_completion(base.tokenizer, reply, finished=finished)
                for reply, finished in zip(ordering.replies, ordering.finished, strict=True)
            ),
            tied=ordering.tied,
            weight=weight,
        )
        for ordering, weight in zip(orderings, weights, strict=True)
    ]
    return [ordering for ordering in encoded if ordering.longest <= context]


def fit(
    base: BaseModel,
    orderings: Sequence[EncodedOrdering],
    *,
    settings: TrainingSettings,
    on_step: Callable[[Step], None] = lambda step: None,
) -> RewardModel:
    """Fit a reward model on `orderings`; `base.model` is taken into a `PeftModel` that carries the adapter `REWARD`.

    Pairs and ties by `pairwise_losses`, longer rankings by `listwise_loss`, all weighted by rater. Raises `ValueError`
    without orderings, `TrainingDiverged`, and what `on_step` raises. The same input and threads give the same model.
    """
    if not any(not ordering.tied for ordering in orderings):
        raise ValueError("There is no comparison to fit a reward model on: all were ties or too long.")
    from peft import get_peft_model

    torch.manual_seed(settings.seed)
    model = get_peft_model(base.model, lora_config(settings), adapter_name=REWARD)
    reward_model = RewardModel(base, model, new_head(base))
    model.eval()
    model.set_adapter(REWARD)
    parameters = [*adapter_parameters(model, REWARD), reward_model.head.weight]
    optimizer = torch.optim.AdamW(parameters, lr=settings.reward_learning_rate, weight_decay=_WEIGHT_DECAY)
    total = reward_steps(len(orderings), settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
    batches = _Batches(orderings, size=settings.batch_size, seed=settings.seed)
    for step in range(1, total + 1):
        optimizer.zero_grad()
        loss, accuracy = _accumulate(reward_model, batches, settings=settings)
        norm = float(nn.utils.clip_grad_norm_(parameters, _MOST_GRADIENT))
        if not math.isfinite(loss + norm):
            raise TrainingDiverged(
                f"The reward model's loss became {loss} at step {step}/{total}. Lower reward_learning_rate "
                f"({settings.reward_learning_rate:g}) and retrain."
            )
        optimizer.step()
        schedule.step()
        values = {"reward_model/loss": loss, "reward_model/accuracy": accuracy, "grad_norm": norm}
        on_step(Step(step, total, values, doing="Fitting the reward model"))
    _centre(reward_model, orderings)
    return reward_model


def reward_steps(orderings: int, settings: TrainingSettings) -> int:
    """Optimizer steps for so many orderings: `reward_epochs` passes, and `min_steps` at least."""
    a_pass = math.ceil(orderings / (settings.batch_size * settings.gradient_accumulation))
    return max(settings.min_steps, math.ceil(settings.reward_epochs * a_pass))


def examine(
    reward_model: RewardModel,
    orderings: Sequence[EncodedOrdering],
    *,
    check: Callable[[], None] = lambda: None,
) -> RewardReport:
    """Validate on `orderings`, which it was not fitted on."""
    prompts = [ordering.prompt for ordering in orderings for _ in ordering.replies]
    replies = [reply for ordering in orderings for reply in ordering.replies]
    rewards = iter(reward_model.score(prompts, replies, check=check))
    return validate(
        [
            Scored(
                rewards=tuple(next(rewards) for _ in ordering.replies),
                tokens=tuple(len(reply) for reply in ordering.replies),
                tied=ordering.tied,
            )
            for ordering in orderings
        ]
    )


class _Batches:
    """Batches of orderings without end, each pass in a new order."""

    def __init__(self, orderings: Sequence[EncodedOrdering], *, size: int, seed: int) -> None:
        self._orderings, self._size = orderings, size
        lengths = [ordering.longest for ordering in orderings]
        self._sampler = LikeLengths(lengths, batch_size=size, seed=seed)
        self._waiting: list[int] = []

    def take(self) -> list[EncodedOrdering]:
        if not self._waiting:
            self._waiting = list(self._sampler)
        taken, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
        return [self._orderings[row] for row in taken]


def _accumulate(
    reward_model: RewardModel, batches: _Batches, *, settings: TrainingSettings
) -> tuple[float, float]:
    """Add up the gradients of one optimizer step; the mean loss and the share of comparisons ordered as people did."""
    losses: list[float] = []
    right: list[bool] = []
    for _ in range(settings.gradient_accumulation):
        orderings = batches.take()
        prompts = [ordering.prompt for ordering in orderings for _ in ordering.replies]
        replies = [reply for ordering in orderings for reply in ordering.replies]
        sizes = [len(ordering.replies) for ordering in orderings]
        groups = torch.split(reward_model.rewards(prompts, replies), sizes)
        loss = _loss(groups, orderings, margin=settings.reward_margin)
        (loss / settings.gradient_accumulation).backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        right += [
            first > second
            for rewards, ordering in zip(groups, orderings, strict=True)
            if not ordering.tied
            for first, second in pairwise(rewards.tolist())
        ]
    return sum(losses) / len(losses), sum(right) / max(1, len(right))


def _loss(groups: Sequence[Tensor], orderings: Sequence[EncodedOrdering], *, margin: float) -> Tensor:
    """The mean loss of a batch by the weights of its raters."""
    device = groups[0].device
    weights = torch.tensor([ordering.weight for ordering in orderings], device=device)
    pairs = [row for row, rewards in enumerate(groups) if len(rewards) == 2]
    losses: list[Tensor] = [listwise_loss(rewards) if len(rewards) > 2 else rewards[0] for rewards in groups]
    if pairs:
        better, worse = torch.stack([groups[row] for row in pairs]).unbind(-1)
        tied = torch.tensor([orderings[row].tied for row in pairs], device=device)
        of_pairs = pairwise_losses(better, worse, tied=tied, margin=margin)
        for row, loss in zip(pairs, of_pairs, strict=True):
            losses[row] = loss
    return weighted_mean(torch.stack(losses), weights)


def _centre(reward_model: RewardModel, orderings: Sequence[EncodedOrdering]) -> None:
    """Put the mean reward of the training replies at 0, and note how far they spread."""
    prompts = [ordering.prompt for ordering in orderings for _ in ordering.replies]
    rewards = torch.tensor(
        reward_model.score(prompts, [reply for ordering in orderings for reply in ordering.replies])
    )
    with torch.no_grad():
        reward_model.head.bias.sub_(rewards.mean().to(reward_model.head.bias.device))
    reward_model.spread = max(float(rewards.std()), 1e-6)
