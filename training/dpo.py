"""From pairs to an adapter: Direct Preference Optimization on TRL's trainer, with a term that keeps replies
fluent.

The loss of a batch is  L + sft_weight * NLL a token of chosen replies  (the second term as in RPO, Liu et al. 2024),
where L is by `dpo_loss`, with d the margin of the log-ratios of chosen and rejected reply and e the label smoothing:

- ``sigmoid``: -log sigmoid(beta d)  (Rafailov et al. 2023, equation 7);
- ``robust``: -[(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d)] / (1 - 2e)  (Chowdhury et al. 2024);
- ``ipo``: (d - 1 / (2 beta))^2, with log-ratios a token  (Azar et al. 2023, equation 17).

The reference is the base, or, when an adapter is continued, a frozen copy of that adapter. It takes token ids and gives
back a model; it knows no ledger, no registry and no gate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from training.base import BaseModel
from training.method import Material, NothingToLearn, Step
from training.own_replies import learn_in_two_parts, own_steps
from training.pairs import EncodedPair
from training.settings import TrainingSettings
from training.trl_training import (
    run_trainer,
    score_reference,
    shared_arguments,
    starting_point,
    tokenized,
    total_steps,
)

__all__ = ["learn", "total_steps", "train"]


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
    """`train` on the pairs of the lesson, and on own replies as `training.own_replies` says; what it is given and gives
    back is `training.method.Method`'s. `on_step` comes often enough to check.
    """

    def on_each_step(step: Step) -> None:
        check()
        on_step(step)

    lesson, learn_pairs = material.lesson, partial(train, base, settings=settings)
    steps = total_steps(len(lesson.pairs), settings)
    own = own_steps(lesson, steps, settings)
    if not own or not lesson.pairs:
        return learn_pairs(lesson.pairs, folder=folder, previous=previous, on_step=on_each_step)
    return learn_in_two_parts(
        base,
        lesson,
        learn_pairs,
        steps=(steps - own, own),
        settings=settings,
        folder=folder,
        previous=previous,
        on_step=on_each_step,
        check=check,
    )


def train(
    base: BaseModel,
    pairs: Sequence[EncodedPair],
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None = None,
    steps: int | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Any:
    """Train an adapter on `pairs` and return the `PeftModel` that holds it as `CANDIDATE`, over the same base
    weights.

    `steps` is how many optimizer steps (None: as many as the settings say for so many pairs). `previous` is the folder
    of an adapter to continue. `on_step` is called after each optimizer step; what it raises ends the training (that is
    how it is cancelled). Raises `TrainingDiverged` when the loss is not finite and `NothingToLearn` when there is no
    pair. The same pairs, settings and threads give the same adapter.
    """
    if not pairs:
        raise NothingToLearn(
            "There is no pair to train on: all were dropped as too long. Raise context_tokens."
        )

    def make() -> Any:
        trainer = _make_trainer(
            base,
            pairs,
            steps=total_steps(len(pairs), settings) if steps is None else steps,
            settings=settings,
            folder=folder,
            previous=previous,
        )
        score_reference(
            trainer,
            lambda batch: trainer.compute_ref_log_probs(trainer.model, batch),
            columns=("ref_chosen_logps", "ref_rejected_logps"),
            rows=2 * settings.batch_size,
            processes=base.processes,
        )
        return trainer

    return run_trainer(base, make, folder=folder, on_step=on_step)


def _make_trainer(
    base: BaseModel,
    pairs: Sequence[EncodedPair],
    *,
    steps: int,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None,
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = {"prompt_ids": [list(pair.prompt) for pair in pairs]}
    rows |= {"chosen_ids": [list(pair.chosen) for pair in pairs]}
    rows |= {"rejected_ids": [list(pair.rejected) for pair in pairs]}
    arguments = DPOConfig(
        **shared_arguments(base, steps=steps, rows=len(pairs), settings=settings, folder=folder),
        **_loss(settings),
        max_length=None,
    )
    return tokenized(DPOTrainer, [pair.longest for pair in pairs], settings)(
        **starting_point(base, settings, previous),
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        processing_class=base.tokenizer,
    )


def _loss(settings: TrainingSettings) -> dict[str, Any]:
    """The loss in TRL's words."""
    robust = settings.dpo_loss == "sigmoid" and settings.label_smoothing > 0
    preference = "robust" if robust else settings.dpo_loss
    return {
        "loss_type": [preference, "sft"] if settings.sft_weight else [preference],
        "loss_weights": [1.0, settings.sft_weight] if settings.sft_weight else [1.0],
        "label_smoothing": settings.label_smoothing,
        "beta": settings.beta,
    }


if __name__ == "__main__":
    from training.command import main

    sys.exit(main("dpo"))
