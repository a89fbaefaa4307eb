"""From thumbs to an adapter: Kahneman-Tversky Optimization on TRL's trainer (Ethayarajh et al. 2024).

With r the log-ratio of a reply under policy and reference, and z the divergence of the two, estimated from replies laid
beside prompts that they do not answer, the loss of a row is (equations 7 and 8)

- liked:    w_liked    * [1 - sigmoid(beta (r - z))],
- disliked: w_disliked * [1 - sigmoid(beta (z - r))],

where the weights make both kinds weigh the same in all. Added is sft_weight times the negative log-likelihood a token
of the liked replies of a batch, without which few likes among many dislikes, or the other way round, may cost a small
model its language. Thumbs are such rows as they are; of a pair, the chosen reply is liked and the rejected one is not.

It takes token ids and gives back a model; it knows no ledger and no gate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from training.base import BaseModel
from training.batching import WholeBatches
from training.method import Material, NothingToLearn, Step
from training.pairs import EncodedPair, EncodedReply
from training.settings import TrainingSettings
from training.sparing import sparing
from training.trl_training import run_trainer, score_reference, shared_arguments, starting_point, total_steps

__all__ = ["learn", "sides_of_pairs", "train"]


def learn(
    base: BaseModel,
    material: Material,
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None,
    on_step: Callable[[Step], None],
    check: Callable[[], None],
) -> Any:
    """`train` on the thumbs of the lesson and both sides of its pairs, as `training.method.Method` asks."""

    def on_each_step(step: Step) -> None:
        check()
        on_step(step)

    rows = [*material.lesson.rated, *sides_of_pairs(material.lesson.pairs)]
    return train(base, rows, settings=settings, folder=folder, previous=previous, on_step=on_each_step)


def sides_of_pairs(pairs: Iterable[EncodedPair]) -> list[EncodedReply]:
    """Both replies of each pair: the chosen one liked, the rejected one not."""
    return [
        EncodedReply(pair.prompt, reply, liked)
        for pair in pairs
        for reply, liked in ((pair.chosen, True), (pair.rejected, False))
    ]


def train(
    base: BaseModel,
    rows: Sequence[EncodedReply],
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Any:
    """Train an adapter on `rows` and return the `PeftModel` that holds it as `CANDIDATE`, like `training.dpo.train`.

    Raises `NothingToLearn` unless some rows are liked and some are not, and for a batch of one, which has no other
    reply to estimate the divergence from.
    """
    liked = sum(row.liked for row in rows)
    if not 0 < liked < len(rows):
        raise NothingToLearn(
            f"KTO needs liked and disliked replies; {liked} of {len(rows)} that fit the context are liked. Collect "
            "thumbs of the other kind, or comparisons, which give both."
        )
    if settings.batch_size < 2:
        raise NothingToLearn(
            "KTO estimates a divergence from the other replies of a batch, and batch_size is 1. Set it to 2 or more."
        )

    def make() -> Any:
        trainer = _make_trainer(base, rows, settings=settings, folder=folder, previous=previous)
        score_reference(
            trainer,
            lambda batch: trainer.compute_ref_log_probs(trainer.model, batch),
            columns=("ref_logps", "ref_KL_logps"),
            rows=2 * settings.batch_size,
            processes=base.processes,
        )
        return trainer

    return run_trainer(base, make, folder=folder, on_step=on_step)


def label_weights(rows: Sequence[EncodedReply]) -> dict[str, float]:
    """Weights with which liked and disliked rows weigh the same in all (equation 8 with the ratio 1): 1 for the
    commoner kind, more for the rarer one."""
    liked = sum(row.liked for row in rows)
    disliked = len(rows) - liked
    most = max(liked, disliked)
    return {"desirable_weight": most / liked, "undesirable_weight": most / disliked}


def in_batches(rows: Sequence[EncodedReply], *, size: int, seed: int) -> list[EncodedReply]:
    """The rows in an order in which every `size` of them make a batch, both kinds spread evenly over the batches.

    The last batch is filled up with rows from the beginning, so that every row is learned from.
    """
    generator = torch.Generator().manual_seed(seed)
    placed: list[tuple[float, EncodedReply]] = []
    for liked in (True, False):
        kind = [row for row in rows if row.liked is liked]
        order = torch.randperm(len(kind), generator=generator).tolist()
        placed += [((rank + 0.5) / len(kind), kind[row]) for rank, row in enumerate(order)]
    ordered = [row for _, row in sorted(placed, key=lambda item: item[0])]
    missing = -len(ordered) % size
    return [*ordered, *(ordered * (1 + missing // len(ordered)))[:missing]]


def _make_trainer(
    base: BaseModel,
    rows: Sequence[EncodedReply],
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None,
) -> Any:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    class ThumbTrainer(sparing(KTOTrainer)):  # type: ignore[misc]
        """TRL's trainer on rows that are token ids already and stand in batches, which each pass takes in a new
        order."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any) -> Any:
            return WholeBatches(len(ordered), batch_size=size, seed=settings.seed)

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            """TRL's loss, and the likelihood of the liked replies from the same forward pass."""
            passes: list[Any] = []

            def recorded(**named: Any) -> Any:
                passes.append(model(**named))
                return passes[-1]

            loss = super()._compute_loss(recorded, inputs, return_outputs)
            liked = inputs["label"].bool()
            if return_outputs or not settings.sft_weight or not liked.any():
                return loss
            tokens = inputs["completion_mask"][liked].sum()
            return loss - settings.sft_weight * passes[-1].log_probs[liked].sum() / tokens

    arguments = KTOConfig(
        **shared_arguments(
            base, steps=total_steps(len(rows), settings), rows=len(rows), settings=settings, folder=folder
        ),
        **label_weights(rows),
        beta=settings.beta,
        max_length=None,
        # The order is ours; this is what TRL insists on for batches that it does not mix.
        train_sampling_strategy="sequential",
    )
    size = arguments.per_device_train_batch_size
    ordered = in_batches(rows, size=size, seed=settings.seed)
    replies = [list(row.reply) for row in ordered]
    # Each reply goes to the next prompt of its batch as well, which it does not answer.
    elsewhere = [
        replies[start + (place - 1) % size] for start in range(0, len(ordered), size) for place in range(size)
    ]
    columns = {
        "prompt_ids": [list(row.prompt) for row in ordered],
        "completion_ids": replies,
        "KL_completion_ids": elsewhere,
        "label": [row.liked for row in ordered],
    }
    return ThumbTrainer(
        **starting_point(base, settings, previous),
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=base.tokenizer,
    )


if __name__ == "__main__":
    from training.command import main

    sys.exit(main("kto"))
