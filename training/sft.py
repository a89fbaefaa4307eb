"""From corrections and liked replies to an adapter: supervised fine-tuning on TRL's trainer.

The loss of a batch is the negative log-likelihood a token of the replies; their prompts are read and not learned. The
better replies of the judge's pairs are learned with them: the model's own best ones (reward-ranked fine-tuning: Dong et
al. 2023), which keep what it learns near to what it says. There is no reference; when an adapter is continued, a frozen
copy stays in the model to be compared with. It takes token ids and gives back a model; it knows no ledger and no gate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.base import BaseModel
from training.method import REFERENCE, Material, NothingToLearn, Step
from training.pairs import EncodedReply
from training.settings import TrainingSettings
from training.trl_training import run_trainer, shared_arguments, starting_point, tokenized, total_steps

__all__ = ["learn", "train"]
_IGNORED = -100
"""The label of a token that is not learned, as PyTorch's cross-entropy knows it."""


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
    """`train` on what people wrote and liked and on the judge's best, as `training.method.Method` asks."""

    def on_each_step(step: Step) -> None:
        check()
        on_step(step)

    lesson = material.lesson
    people = [*lesson.written, *(row for row in lesson.rated if row.liked)]
    if not people:
        raise NothingToLearn(
            "SFT learns from corrections and liked replies, and none of those to train on fits the context. Correct "
            "or like some replies, or retrain with --method dpo, which learns from comparisons."
        )
    best = [EncodedReply(pair.prompt, pair.chosen, True) for pair in lesson.pairs[lesson.people :]]
    rows = [*people, *best]
    return train(base, rows, settings=settings, folder=folder, previous=previous, on_step=on_each_step)


def train(
    base: BaseModel,
    rows: Sequence[EncodedReply],
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Any:
    """Train an adapter to say the replies of `rows` and return the `PeftModel` that holds it as `CANDIDATE`, like
    `training.dpo.train`. Raises `NothingToLearn` when there is no row."""
    if not rows:
        raise NothingToLearn(
            "There is no reply to learn: all were dropped as too long. Raise context_tokens."
        )

    def make() -> Any:
        return _make_trainer(base, rows, settings=settings, folder=folder, previous=previous)

    model = run_trainer(base, make, folder=folder, on_step=on_step)
    if previous is not None:
        model.load_adapter(str(previous), adapter_name=REFERENCE, is_trainable=False)
    return model


def _make_trainer(
    base: BaseModel,
    rows: Sequence[EncodedReply],
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None,
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    steps = total_steps(len(rows), settings)
    columns = {
        "input_ids": [[*row.prompt, *row.reply] for row in rows],
        "labels": [[*[_IGNORED] * len(row.prompt), *row.reply] for row in rows],
    }
    return tokenized(SFTTrainer, [row.longest for row in rows], settings)(
        **starting_point(base, settings, previous),
        args=SFTConfig(
            **shared_arguments(base, steps=steps, rows=len(rows), settings=settings, folder=folder),
            max_length=None,
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=base.tokenizer,
    )


if __name__ == "__main__":
    from training.command import main

    sys.exit(main("sft"))
