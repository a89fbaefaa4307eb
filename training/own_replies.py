"""The last part of a training on pairs: the half-trained policy's own replies, ordered by the judge of people's taste.

Pairs of what the starting policy says teach the way, but not how far: once the policy has moved, both sides of most of
them lie behind it. So the adapter that the first part made answers training prompts again, the judge orders what it
says, and training goes on from there with that adapter as the reference (iterative preference learning: Xiong et al.
2024; with a judge fitted on people's pairs in place of people). Where the judge sees too little to choose between the
replies, the taste is met, and the training ends with the first part.

It knows no trainer and no loss: what trains on pairs is handed to it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from training.base import BaseModel
from training.base_features import base_features
from training.checkpoints import FOLDER
from training.labelling import judged_rows, pools_of
from training.lesson import Lesson
from training.method import CANDIDATE, REFERENCE, Step
from training.pairs import EncodedPair, encode_pairs
from training.settings import TrainingSettings

log = logging.getLogger("training")
_PROMPTS = 32
_TIMES = 8
"""Replies to each prompt."""
_PART = 3
"""The best third of them is preferred to the worst third."""
_MOST_PASSES = 4
"""Over the policy's own pairs; few of them deserve few steps."""


class TrainOnPairs(Protocol):
    """A training of `steps` optimizer steps on `pairs`, from the base or from the adapter in `previous`."""

    def __call__(
        self,
        pairs: list[EncodedPair],
        *,
        steps: int,
        folder: Path,
        previous: Path | None,
        on_step: Callable[[Step], None],
    ) -> Any: ...


def own_steps(lesson: Lesson, steps: int, settings: TrainingSettings) -> int:
    """How many of `steps` are kept for own replies: ``own_share`` of them; none without pools to ask again."""
    if not lesson.pools or not lesson.judge.has_opinion:
        return 0
    return round(settings.own_share * steps)


def learn_in_two_parts(
    base: BaseModel,
    lesson: Lesson,
    train: TrainOnPairs,
    *,
    steps: tuple[int, int],
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None,
    on_step: Callable[[Step], None],
    check: Callable[[], None],
) -> Any:
    """Train for ``steps[0]`` on the lesson's pairs and for up to ``steps[1]`` on pairs of own replies.

    Returns the model with `CANDIDATE`, and with `REFERENCE` exactly if there is a `previous` adapter to be it. What the
    first part made is kept with the checkpoints in `folder`: a run that is resumed after it goes on there.
    """
    halfway = folder / FOLDER / "halfway"
    total = sum(steps)
    if not halfway.is_dir():
        told = _counted(on_step, before=0, total=total)
        model = train(lesson.pairs, steps=steps[0], folder=folder, previous=previous, on_step=told)
        base.processes.led(lambda: _keep(model, halfway))
        model.unload()
    pairs = own_pairs(base, halfway, lesson, settings=settings, check=check)
    passes = _MOST_PASSES * len(pairs) // (settings.batch_size * settings.gradient_accumulation)
    later = min(steps[1], passes)
    log.info("The half-trained adapter's own replies made %d pairs, for %d steps.", len(pairs), later)
    if later:
        told = _counted(on_step, before=steps[0], total=steps[0] + later, doing="Training on its own replies")
        own = folder / FOLDER / "own"
        model = train(pairs, steps=later, folder=own, previous=halfway, on_step=told)
        model.delete_adapter(REFERENCE)
    else:
        model = _load(base, halfway)
    if previous is not None:
        model.load_adapter(str(previous), adapter_name=REFERENCE, is_trainable=False)
    model.eval()
    return model


def own_pairs(
    base: BaseModel,
    adapter: Path,
    lesson: Lesson,
    *,
    settings: TrainingSettings,
    check: Callable[[], None],
) -> list[EncodedPair]:
    """Pairs of what `adapter` replies to the lesson's training prompts, of which the judge is sure."""
    model = _load(base, adapter)
    asked = [pool.prompt for pool in lesson.pools[:_PROMPTS]]
    pools = pools_of(
        base, model, asked, times=_TIMES, adapter=CANDIDATE, seed=3, settings=settings, each_step=check
    )
    judge = lesson.judge.seeing_through(base_features(base, model, each_step=check))
    sure = judged_rows(judge, pools, settings=settings, part=_PART)
    rows = base.processes.led(lambda: sure)
    model.unload()
    context = min(base.context_tokens, settings.context_tokens)
    return encode_pairs(base.tokenizer, rows, context_tokens=context)[1]


def _load(base: BaseModel, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base.model, str(adapter), CANDIDATE)


def _keep(model: Any, folder: Path) -> None:
    """Write the adapter to `folder`, whole or not at all."""
    unfinished = folder.with_name(f"{folder.name}.part")
    model.save_pretrained(str(unfinished), selected_adapters=[CANDIDATE], save_embedding_layers=False)
    os.replace(unfinished, folder)


def _counted(
    on_step: Callable[[Step], None], *, before: int, total: int, doing: str = "Training"
) -> Callable[[Step], None]:
    """Pass steps on as those of one training of `total` steps, `before` of which are done."""

    def told(step: Step) -> None:
        on_step(replace(step, step=before + step.step, total_steps=total, doing=doing))

    return told
