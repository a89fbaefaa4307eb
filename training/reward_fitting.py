"""Fits a reward model on what people said.

Pairs and ties by Bradley-Terry with a margin, rankings by their neighbours, thumbs by logistic regression, all weighted
by rater (`training.preference_losses`). It takes orderings and gives back a `RewardModel` over the same frozen base; it
reads no ledger, writes no file and does not say what is good enough.
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
from training.checkpoints import NO_CHECKPOINT, Checkpoint
from training.cpu_products import hasten
from training.method import Step, TrainingDiverged, adapter_parameters, lora_config
from training.orderings import Ordering, rater_weights
from training.out_of_memory import MicroBatch
from training.pairs import encode_completion
from training.preference_losses import listwise_loss, pairwise_losses, thumb_losses, weighted_mean
from training.prompt import encode_prompt
from training.reward_model import REWARD, RewardModel, new_head, new_phrases
from training.settings import TrainingSettings
from training.sharding import sharded

_MOST_GRADIENT = 1.0
_WEIGHT_DECAY = 0.01
_ENOUGH = 1000
_PHRASES_FASTER = 30.0
"""Each phrase is met in few replies, so what it is worth must be learned in few steps."""


@dataclass(frozen=True)
class EncodedOrdering:
    """An ordering as token ids, best first, with the weight of its rater; or one reply with a thumb (`liked`)."""

    prompt: tuple[int, ...]
    replies: tuple[tuple[int, ...], ...]
    tied: bool
    weight: float
    liked: bool | None = None

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
            liked=ordering.liked,
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
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> RewardModel:
    """Fit a reward model on `orderings`; `base.model` is taken into a `PeftModel` that carries the adapter `REWARD`.

    Pairs and ties by `pairwise_losses`, longer rankings by `listwise_loss`, thumbs by `thumb_losses`, all weighted by
    rater. Thumbs of one kind only say nothing and are left out. Raises `ValueError` without anything that prefers,
    `TrainingDiverged`, and what `on_step` raises. The same input and threads give the same model, also where the fit
    goes on from `checkpoint`.
    """
    orderings = _telling(orderings)
    from peft import get_peft_model

    torch.manual_seed(settings.seed)
    model = get_peft_model(base.model, lora_config(settings), adapter_name=REWARD)
    hasten(model)
    phrases = new_phrases(base, longest=settings.reward_phrases)
    reward_model = RewardModel(base, model, new_head(base), pooling=settings.reward_pooling, phrases=phrases)
    model.eval()
    model.set_adapter(REWARD)
    parameters = [*adapter_parameters(model, REWARD), reward_model.head.weight]
    if thumbs := [ordering.liked for ordering in orderings if ordering.liked is not None]:
        parameters.append(_begin_at_share(reward_model.head, sum(thumbs) / len(thumbs)))
    optimizer = torch.optim.AdamW(parameters, lr=settings.reward_learning_rate, weight_decay=_WEIGHT_DECAY)
    if phrases is not None:
        rate = settings.reward_learning_rate * _PHRASES_FASTER
        optimizer.add_param_group({"params": [phrases.worth], "lr": rate, "weight_decay": 0.0})
        parameters.append(phrases.worth)
    total = reward_steps(len(orderings), settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
    batches = _Batches(orderings, size=settings.batch_size, seed=settings.seed)
    micro = MicroBatch(base.processes.rows_each(settings.batch_size, settings.gradient_accumulation))
    begun: int = checkpoint.resume(parameters, (optimizer, schedule)).get("step", 0)
    for _ in range(begun * settings.gradient_accumulation):
        batches.take()
    with sharded(base):
        for step in range(begun + 1, total + 1):
            taken = [batches.take() for _ in range(settings.gradient_accumulation)]
            loss, accuracy = _accumulate(
                reward_model, taken, parameters, micro, margin=settings.reward_margin
            )
            norm = float(nn.utils.clip_grad_norm_(parameters, _MOST_GRADIENT))
            if not math.isfinite(loss + norm):
                raise TrainingDiverged(
                    f"The reward model's loss became {loss} at step {step}/{total}. Lower reward_learning_rate "
                    f"({settings.reward_learning_rate:g}) and retrain."
                )
            optimizer.step()
            schedule.step()
            if checkpoint.is_due(step) and base.processes.leads:
                checkpoint.keep(parameters, (optimizer, schedule), step=step)
            values = {"reward_model/loss": loss, "reward_model/accuracy": accuracy, "grad_norm": norm}
            on_step(Step(step, total, values, doing="Fitting the reward model"))
    _centre(reward_model, orderings)
    return reward_model


def _telling(orderings: Sequence[EncodedOrdering]) -> list[EncodedOrdering]:
    """The orderings that can be learned from: with their thumbs if both kinds are there."""
    kinds = {ordering.liked for ordering in orderings} - {None}
    kept = [ordering for ordering in orderings if ordering.liked is None or len(kinds) == 2]
    if all(ordering.tied for ordering in kept):
        raise ValueError(
            "There is no comparison to fit a reward model on, nor thumbs both up and down: all were ties, thumbs of "
            "one kind, or too long."
        )
    return kept


def _begin_at_share(head: nn.Linear, liked: float) -> Tensor:
    """Let the bias begin at the log-odds of a thumb up; it is what thumbs, and nothing else, move it by."""
    with torch.no_grad():
        head.bias.fill_(math.log(liked / (1 - liked)))
    return head.bias


def reward_steps(orderings: int, settings: TrainingSettings) -> int:
    """Optimizer steps for so many orderings: `reward_epochs` passes, and `min_steps` at least."""
    a_pass = math.ceil(orderings / (settings.batch_size * settings.gradient_accumulation))
    return max(settings.min_steps, math.ceil(settings.reward_epochs * a_pass))


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
    reward_model: RewardModel,
    batches: Sequence[Sequence[EncodedOrdering]],
    parameters: Sequence[Tensor],
    micro: MicroBatch,
    *,
    margin: float,
) -> tuple[float, float]:
    """Set the gradients to those of one optimizer step, the mean over `batches`; their mean loss, and the share of
    comparisons ordered as people did."""
    processes, figures = reward_model.base.processes, dict.fromkeys(("loss", "right", "compared"), 0.0)

    def begin() -> None:
        figures.update(dict.fromkeys(figures, 0.0))
        for parameter in parameters:
            parameter.grad = None

    def work() -> None:
        for (orderings, part), counts in processes.dealt(_parts(batches, rows=micro.rows)):
            prompts = [ordering.prompt for ordering in orderings for _ in ordering.replies]
            replies = [reply for ordering in orderings for reply in ordering.replies]
            sizes = [len(ordering.replies) for ordering in orderings]
            groups = torch.split(reward_model.rewards(prompts, replies), sizes)
            loss = counts * part * _loss(groups, orderings, margin=margin)
            loss.backward()  # type: ignore[no-untyped-call]
            figures["loss"] += float(loss.detach())
            # A thumb has no neighbours.
            decided = [rewards for rewards, item in zip(groups, orderings, strict=True) if not item.tied]
            right = [a > b for rewards in decided for a, b in pairwise(rewards.tolist())]
            figures["right"] += counts * sum(right)
            figures["compared"] += counts * len(right)

    begin()
    micro.step(work, undo=begin, processes=processes)
    processes.add_up_gradients(parameters)
    found = processes.totals(figures)
    return found["loss"], found["right"] / max(1.0, found["compared"])


def _parts(
    batches: Sequence[Sequence[EncodedOrdering]], *, rows: int
) -> list[tuple[Sequence[EncodedOrdering], float]]:
    """The batches, `rows` at a time, each part with its share in the mean of the batches' weighted means."""
    found = []
    for batch in batches:
        whole = sum(ordering.weight for ordering in batch)
        for start in range(0, len(batch), rows):
            part = batch[start : start + rows]
            weight = sum(ordering.weight for ordering in part)
            if weight:
                found.append((part, weight / whole / len(batches)))
    return found


def _loss(groups: Sequence[Tensor], orderings: Sequence[EncodedOrdering], *, margin: float) -> Tensor:
    """The mean loss of a batch by the weights of its raters."""
    device = groups[0].device
    weights = torch.tensor([ordering.weight for ordering in orderings], device=device)
    losses: list[Tensor] = [listwise_loss(rewards) if len(rewards) > 2 else rewards[0] for rewards in groups]
    pairs = [row for row, rewards in enumerate(groups) if len(rewards) == 2]
    if pairs:
        better, worse = torch.stack([groups[row] for row in pairs]).unbind(-1)
        tied = torch.tensor([orderings[row].tied for row in pairs], device=device)
        of_pairs = pairwise_losses(better, worse, tied=tied, margin=margin)
        for row, loss in zip(pairs, of_pairs, strict=True):
            losses[row] = loss
    thumbs = [row for row, rewards in enumerate(groups) if len(rewards) == 1]
    if thumbs:
        liked = torch.tensor([orderings[row].liked is True for row in thumbs], device=device)
        for row, loss in zip(
            thumbs, thumb_losses(torch.cat([groups[row] for row in thumbs]), liked), strict=True
        ):
            losses[row] = loss
    return weighted_mean(torch.stack(losses), weights)


def _centre(reward_model: RewardModel, orderings: Sequence[EncodedOrdering]) -> None:
    """Put the mean reward of the training replies at 0, and note how far they spread; a thousand orderings show it."""
    orderings = orderings[:: math.ceil(len(orderings) / _ENOUGH)]
    prompts = [ordering.prompt for ordering in orderings for _ in ordering.replies]
    rewards = torch.tensor(
        reward_model.score(prompts, [reply for ordering in orderings for reply in ordering.replies])
    )
    with torch.no_grad():
        reward_model.head.bias.sub_(rewards.mean().to(reward_model.head.bias.device))
    reward_model.spread = max(float(rewards.std()), 1e-6)
