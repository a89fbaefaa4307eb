"""Proximal policy optimization from people's judgements, on one frozen base (Ouyang et al. 2022; Schulman et al. 2017).

``python -m training.ppo`` retrains by it (`training.command`). In order: a reward model is fitted and examined, and
below the bar there is no PPO (`training.groundwork`); then, `ppo_iterations` times, the policy answers training prompts
(`training.rollout`), moves, and the critic is fitted to the returns (`training.policy_updates`). Policy, critic and
reward model are LoRA adapters of the same base (`training.actor_critic`).

It sees training prompts only, and neither examines nor publishes what it made.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from training.actor_critic import ActorCritic, beside
from training.base import BaseModel
from training.checkpoints import NO_CHECKPOINT, Checkpoint, checkpoint_in
from training.divergence import LastGood, broken_figure
from training.groundwork import encode_prompts, examined_reward_model, later
from training.method import Material, Step, TrainingDiverged
from training.pairs import EncodedPair
from training.policy_losses import next_coefficient
from training.policy_updates import Learner
from training.reward_model import RewardModel
from training.rollout import TOLERANCE, collect
from training.settings import TrainingSettings
from training.sharding import sharded

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
    reward_model, done = examined_reward_model(
        base,
        material,
        settings=settings,
        folder=folder,
        on_step=on_step,
        check=check,
        later_steps=settings.ppo_iterations,
    )
    actors = beside(reward_model, settings=settings, previous=previous)
    optimize(
        actors,
        reward_model,
        prompts,
        ptx=material.lesson.pairs,
        settings=settings,
        on_step=later(on_step, done),
        check=check,
        checkpoint=checkpoint_in(folder, "ppo", every=settings.save_steps),
    )
    return actors.policy_alone()


def optimize(
    actors: ActorCritic,
    reward_model: RewardModel,
    prompts: Sequence[Sequence[int]],
    *,
    ptx: Sequence[EncodedPair],
    settings: TrainingSettings,
    on_step: Callable[[Step], None] = lambda step: None,
    check: Callable[[], None] = lambda: None,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> None:
    """Move the policy towards the reward on `prompts`, and the critic with it, in place.

    `ptx` are replies whose likelihood is kept up (their chosen sides). Each iteration is a `Step` with TRL's metrics.
    The same input and threads give the same policy, also from a `checkpoint` on. Raises `TrainingDiverged` with the
    policy that last gave finite numbers, and what the callbacks raise.
    """
    learner = Learner(actors, ptx, settings=settings, check=check)
    good = LastGood(actors.policy_parameters())
    draw = _prompts_drawn(prompts, settings=settings)
    coefficient, recompute = settings.kl_coefficient, None
    reached = checkpoint.resume(learner.parameters, learner.optimizers)
    begun: int = reached.get("iteration", 0)
    if reached:
        coefficient, recompute = reached["coefficient"], reached["recompute"]
        learner.generator.set_state(reached["generator"])
        draw = islice(draw, begun * settings.rollout_size, None)
    for iteration in range(begun + 1, settings.ppo_iterations + 1):
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
        _check_finite(figures, actors, good, iteration=iteration, settings=settings)
        good.keep()
        if recompute is None and rollout.difference is not None:
            recompute = rollout.difference > TOLERANCE
            figures["rollout/logprob_difference"] = rollout.difference
            log.info(
                "Sampled and recomputed log-probabilities differ by %.2g nats at most: they are %s.",
                rollout.difference,
                "recomputed" if recompute else "kept",
            )
        share = 1 - (iteration - 1) / settings.ppo_iterations
        # A trust region step differentiates twice, which layers that come apart behind a pass do not allow.
        with sharded(actors.base, apart=settings.policy_update != "trpo"):
            figures |= learner.learn_from(rollout, learning_rate=settings.ppo_learning_rate * share)
        figures["episode"] = float(iteration * settings.rollout_size)
        _check_finite(figures, actors, good, iteration=iteration, settings=settings)
        if settings.kl_target:
            coefficient = next_coefficient(
                coefficient,
                measured=figures["objective/kl"],
                target=settings.kl_target,
                replies=settings.rollout_size,
                horizon=settings.kl_horizon,
            )
        if _is_due(checkpoint, iteration, settings) and actors.base.processes.leads:
            checkpoint.keep(
                learner.parameters,
                learner.optimizers,
                generator=learner.generator.get_state(),
                iteration=iteration,
                coefficient=coefficient,
                recompute=recompute,
            )
        on_step(Step(iteration, settings.ppo_iterations, figures, doing="Optimizing the policy"))


def _is_due(checkpoint: Checkpoint, iteration: int, settings: TrainingSettings) -> bool:
    """Whether this iteration's optimizer steps have reached a step at which a checkpoint is due."""
    a_step = settings.batch_size * settings.gradient_accumulation
    steps = settings.ppo_epochs * math.ceil(settings.rollout_size / a_step)
    return any(checkpoint.is_due(step) for step in range((iteration - 1) * steps + 1, iteration * steps + 1))


def _prompts_drawn(
    prompts: Sequence[Sequence[int]], *, settings: TrainingSettings
) -> Iterator[Sequence[int]]:
    """Prompts without end: each once a pass, every pass in a new order."""
    generator = torch.Generator().manual_seed(settings.seed)
    while True:
        for row in torch.randperm(len(prompts), generator=generator).tolist():
            yield prompts[row]


def _check_finite(
    figures: dict[str, float],
    actors: ActorCritic,
    good: LastGood,
    *,
    iteration: int,
    settings: TrainingSettings,
) -> None:
    if broken := broken_figure(figures):
        good.restore()
        raise TrainingDiverged(
            f"{broken} in iteration {iteration}/{settings.ppo_iterations}. What is served has not changed. Lower "
            f"ppo_learning_rate ({settings.ppo_learning_rate:g}) and retrain.",
            actors.policy_alone(),
        )


if __name__ == "__main__":
    from training.command import main

    sys.exit(main("ppo"))
