"""Proximal policy optimization from people's judgements, on one frozen base (Ouyang et al. 2022; Schulman et al. 2017).

``python -m training.ppo [SETTINGS]`` is ``python -m training.run --method ppo``. In order: a reward model is fitted
and examined, and below the bar there is no PPO; then, `ppo_iterations` times, the policy answers training prompts
(`training.rollout`), moves, and the critic is fitted to the returns (`training.policy_updates`). Policy, critic and
reward model are LoRA adapters of the same base (`training.actor_critic`).

It sees training prompts only, and neither examines nor publishes what it made.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.actor_critic import ActorCritic, beside
from training.base import BaseModel
from training.method import Material, NothingToLearn, Step, TrainingDiverged
from training.orderings import orderings_of, split_orderings
from training.pairs import EncodedPair
from training.policy_losses import next_coefficient
from training.policy_updates import Learner
from training.prompt import encode_prompt
from training.reward_fitting import encode_orderings, examine, fit, reward_steps
from training.reward_model import RewardModel
from training.reward_validation import problem_with
from training.rollout import TOLERANCE, collect
from training.settings import TrainingSettings
from training.views import Prompt

log = logging.getLogger("training")


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
    """A reward model, the bar, and PPO, as `training.method.Method` asks.

    The reward model stays in the run's folder under ``reward_model``. Raises `NothingToLearn` for one below the bar and
    where no prompt leaves room for a reply.
    """
    prompts = encode_prompts(base, material.view.train_prompts, settings=settings)
    steps = settings.ppo_iterations
    reward_model, done = _reward_model(
        base, material, settings=settings, folder=folder, on_step=on_step, check=check
    )
    actors = beside(reward_model, settings=settings, previous=previous)

    def on_iteration(step: Step) -> None:
        on_step(replace(step, step=done + step.step, total_steps=done + steps))

    optimize(
        actors,
        reward_model,
        prompts,
        ptx=material.lesson.pairs,
        settings=settings,
        on_step=on_iteration,
        check=check,
    )
    return actors.policy_alone()


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


def _reward_model(
    base: BaseModel,
    material: Material,
    *,
    settings: TrainingSettings,
    folder: Path,
    on_step: Callable[[Step], None],
    check: Callable[[], None],
) -> tuple[RewardModel, int]:
    """A reward model that has passed the bar, and the steps that fitting it took."""
    if settings.reward_model:
        reward_model, report = RewardModel.load(base, Path(settings.reward_model))
        steps = 0
    else:
        train, heldout = split_orderings(orderings_of(material.feedback), material.view.train_prompts)
        lessons = encode_orderings(base, train, settings=settings)
        steps = reward_steps(len(lessons), settings)
        total = steps + settings.ppo_iterations

        def on_fitting(step: Step) -> None:
            check()
            on_step(replace(step, total_steps=total))

        reward_model = fit(base, lessons, settings=settings, on_step=on_fitting)
        report = examine(reward_model, encode_orderings(base, heldout, settings=settings), check=check)
        ids = [ordering.feedback_id for ordering in train]
        reward_model.save(folder / "reward_model", report=report, feedback_ids=ids)
    log.info("The reward model on held-out orderings: %s", report)
    if problem := problem_with(report, settings):
        raise NothingToLearn(problem)
    return reward_model, steps


def optimize(
    actors: ActorCritic,
    reward_model: RewardModel,
    prompts: Sequence[Sequence[int]],
    *,
    ptx: Sequence[EncodedPair],
    settings: TrainingSettings,
    on_step: Callable[[Step], None] = lambda step: None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Move the policy towards the reward on `prompts`, and the critic with it, in place.

    `ptx` are replies whose likelihood is kept up (their chosen sides). Each iteration is a `Step` with TRL's metrics.
    The same input and threads give the same policy. Raises `TrainingDiverged`, and what the callbacks raise.
    """
    learner = Learner(actors, ptx, settings=settings, check=check)
    draw = _prompts_drawn(prompts, settings=settings)
    coefficient, recompute = settings.kl_coefficient, None
    for iteration in range(1, settings.ppo_iterations + 1):
        rollout = collect(
            actors,
            reward_model,
            [next(draw) for _ in range(settings.rollout_size)],
            settings=settings,
            seed=settings.seed * 1_000_003 + iteration,
            coefficient=coefficient,
            recompute=recompute,
            check=check,
        )
        figures = dict(rollout.figures)
        if recompute is None and rollout.difference is not None:
            recompute = rollout.difference > TOLERANCE
            figures["rollout/logprob_difference"] = rollout.difference
            log.info(
                "Sampled and recomputed log-probabilities differ by %.2g nats at most: they are %s.",
                rollout.difference,
                "recomputed" if recompute else "kept",
            )
        share = 1 - (iteration - 1) / settings.ppo_iterations
        figures |= learner.learn_from(rollout, learning_rate=settings.ppo_learning_rate * share)
        figures["episode"] = float(iteration * settings.rollout_size)
        _check_finite(figures, iteration, settings)
        if settings.kl_target:
            coefficient = next_coefficient(
                coefficient,
                measured=figures["objective/kl"],
                target=settings.kl_target,
                replies=settings.rollout_size,
                horizon=settings.kl_horizon,
            )
        on_step(Step(iteration, settings.ppo_iterations, figures, doing="Optimizing the policy"))


def _prompts_drawn(
    prompts: Sequence[Sequence[int]], *, settings: TrainingSettings
) -> Iterator[Sequence[int]]:
    """Prompts without end: each once a pass, every pass in a new order."""
    generator = torch.Generator().manual_seed(settings.seed)
    while True:
        for row in torch.randperm(len(prompts), generator=generator).tolist():
            yield prompts[row]


def _check_finite(figures: dict[str, float], iteration: int, settings: TrainingSettings) -> None:
    broken = [name for name, value in figures.items() if not math.isfinite(value)]
    if broken:
        raise TrainingDiverged(
            f"{broken[0]} became {figures[broken[0]]} in iteration {iteration}/{settings.ppo_iterations}. The "
            f"candidate was thrown away; what is served has not changed. Lower ppo_learning_rate "
            f"({settings.ppo_learning_rate:g}) and retrain."
        )


if __name__ == "__main__":
    from training.run import main

    sys.exit(main(["--method", "ppo", *sys.argv[1:]]))
