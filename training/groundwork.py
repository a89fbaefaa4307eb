"""What every policy optimization begins with: prompts that leave room for a reply, and a reward model above its bar.

PPO, RLOO and GRPO come here alike, so that none of them optimizes against a reward model that another would refuse. It
moves no policy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from training.base import BaseModel
from training.checkpoints import checkpoint_in
from training.method import Material, NothingToLearn, Step
from training.orderings import orderings_of, split_orderings
from training.prompt import encode_prompt
from training.reward_examination import examine
from training.reward_fitting import encode_orderings, fit, reward_steps
from training.reward_model import RewardModel, holds_reward_model
from training.reward_validation import problem_with
from training.settings import TrainingSettings
from training.views import Prompt

log = logging.getLogger("training")


def encode_prompts(
    base: BaseModel, prompts: Sequence[Prompt], *, settings: TrainingSettings
) -> list[list[int]]:
    """The prompts that leave room for a reply, as ids. Raises `NothingToLearn` when none does."""
    room = min(base.context_tokens, settings.context_tokens) - settings.max_new_tokens
    encoded = [encode_prompt(base.tokenizer, prompt) for prompt in prompts]
    fitting = [ids for ids in encoded if len(ids) <= room]
    if not fitting:
        raise NothingToLearn(
            f"None of {len(encoded)} training prompts leaves room for a reply of {settings.max_new_tokens} tokens. "
            "Raise context_tokens or lower max_new_tokens."
        )
    return fitting


def examined_reward_model(
    base: BaseModel,
    material: Material,
    *,
    settings: TrainingSettings,
    folder: Path,
    on_step: Callable[[Step], None],
    check: Callable[[], None],
    later_steps: int,
) -> tuple[RewardModel, int]:
    """A reward model that has passed the bar, and the steps that fitting it took.

    It is the one that the settings name, or is fitted on what people said and left in the run's `folder` under
    ``reward_model``. `later_steps` come after, for the progress. Raises `NothingToLearn` for one below the bar.
    """
    if settings.reward_model:
        reward_model, report = RewardModel.load(base, Path(settings.reward_model))
        steps = 0
    else:
        train, heldout = split_orderings(orderings_of(material.feedback), material.view.train_prompts)
        lessons = encode_orderings(base, train, settings=settings)
        steps = reward_steps(len(lessons), settings)

        def on_fitting(step: Step) -> None:
            check()
            on_step(replace(step, total_steps=steps + later_steps))

        own = folder / "reward_model"
        if holds_reward_model(own):  # a run that goes on with one that had come so far
            reward_model, report = RewardModel.load(base, own)
        else:
            reward_model = fit(
                base,
                lessons,
                settings=settings,
                on_step=on_fitting,
                checkpoint=checkpoint_in(folder, "reward_model", every=settings.save_steps),
            )
            aside = encode_orderings(base, heldout, settings=settings)
            report = examine(reward_model, aside, known=lessons, check=check)
            ids = [ordering.feedback_id for ordering in train]
            base.processes.led(lambda: reward_model.save(own, report=report, feedback_ids=ids))
    log.info("The reward model on held-out orderings: %s", report)
    if problem := problem_with(report, settings):
        raise NothingToLearn(problem)
    return reward_model, steps


def later(on_step: Callable[[Step], None], done: int) -> Callable[[Step], None]:
    """`on_step` for steps that come after `done` others."""
    return lambda step: on_step(replace(step, step=done + step.step, total_steps=done + step.total_steps))
