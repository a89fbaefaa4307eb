"""Policy optimization in groups on TRL's trainers: several replies to each prompt, held against each other.

What RLOO and GRPO share: a reward model above its bar, the policy beside it on the same frozen base, rewards in its
units less a penalty for replies that never end, and sampling by `training.generation`, which knows what ends a reply in
this model's chat template. Prompts are token ids laid out as in the chat. The loss is the trainer's. It sees training
prompts only, and neither examines nor publishes what it made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.base import BaseModel
from training.generation import Decoding, sample, speaking_as
from training.groundwork import encode_prompts, examined_reward_model, later
from training.method import CANDIDATE, REFERENCE, Material, Method, NothingToLearn, Step, lora_config
from training.reward_model import REWARD, RewardModel
from training.settings import TrainingSettings
from training.sparing import sparing
from training.trl_training import run_trainer, shared_arguments

Make = Callable[[dict[str, Any]], tuple[type[Any], Any]]
"""From the arguments that all share to (TRL's trainer, its config)."""


def learner(make: Make) -> Method:
    """A method's `learn`: a reward model, the bar, and the trainer of `make`.

    It raises `NothingToLearn` for a reward model below the bar and where no prompt leaves room for a reply.
    """

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
        prompts = encode_prompts(base, material.view.train_prompts, settings=settings)
        reward_model, done = examined_reward_model(
            base,
            material,
            settings=settings,
            folder=folder,
            on_step=on_step,
            check=check,
            later_steps=steps_of(settings),
        )
        return optimize(
            reward_model,
            prompts,
            make,
            settings=settings,
            folder=folder,
            previous=previous,
            on_step=later(on_step, done),
            check=check,
        )

    return learn


def steps_of(settings: TrainingSettings) -> int:
    """Optimizer steps in all: each reply is learned from once."""
    return settings.group_iterations * _passes(settings) // settings.gradient_accumulation


def optimize(
    reward_model: RewardModel,
    prompts: Sequence[Sequence[int]],
    make: Make,
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None,
    on_step: Callable[[Step], None] = lambda step: None,
    check: Callable[[], None] = lambda: None,
) -> Any:
    """Move a policy towards the reward on `prompts` and return the `PeftModel` that holds it as `CANDIDATE`.

    The policy is a fresh adapter or the one in the folder `previous`; TRL keeps a frozen copy of it as the reference.
    Raises `NothingToLearn` for sizes that do not divide, `TrainingDiverged`, and what the callbacks raise.
    """
    _check_sizes(settings)
    base, model = reward_model.base, reward_model.model
    torch.manual_seed(settings.seed)
    if previous is None:
        model.add_adapter(CANDIDATE, lora_config(settings))
    else:
        model.load_adapter(str(previous), adapter_name=CANDIDATE, is_trainable=True)
    model.set_adapter(CANDIDATE)

    def made() -> Any:
        trainer, arguments = make(_arguments(base, settings, folder))
        return _make_trainer(trainer, arguments, reward_model, prompts, settings=settings, check=check)

    trained = run_trainer(
        base,
        made,
        folder=folder,
        on_step=on_step,
        rate="group_learning_rate",
        doing="Optimizing the policy",
    )
    for adapter in (REWARD,) if previous is not None else (REWARD, REFERENCE):
        trained.delete_adapter(adapter)
    trained.set_adapter(CANDIDATE, inference_mode=True)
    return trained


def _arguments(base: BaseModel, settings: TrainingSettings, folder: Path) -> dict[str, Any]:
    """What both trainers take. A generation is `rollout_size` replies, learned from in passes of `batch_size`."""
    shared = shared_arguments(
        base, steps=steps_of(settings), rows=settings.rollout_size, settings=settings, folder=folder
    )
    count = base.processes.count
    # What was sampled is in no checkpoint: a training is resumed where a generation begins.
    generation = _passes(settings) // settings.gradient_accumulation
    return shared | {
        "save_steps": generation * math.ceil(shared["save_steps"] / generation),
        "learning_rate": settings.group_learning_rate,
        "steps_per_generation": settings.rollout_size // (shared["per_device_train_batch_size"] * count),
        "num_generations": settings.group_size,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.rollout_temperature,
        "beta": settings.kl_coefficient,
        "epsilon": settings.clip_policy,
        "dataloader_drop_last": False,
    }


def _make_trainer(
    trainer: type[Any],
    arguments: Any,
    reward_model: RewardModel,
    prompts: Sequence[Sequence[int]],
    *,
    settings: TrainingSettings,
    check: Callable[[], None],
) -> Any:
    from datasets import Dataset

    base, model = reward_model.base, reward_model.model
    decoding = Decoding(
        temperature=settings.rollout_temperature,
        top_p=1.0,
        max_new_tokens=settings.max_new_tokens,
        ends=base.ends,
        pad=base.tokenizer.pad_token_id,
        seed=settings.seed,
    )

    # The loss of DAPO is a sum over the tokens of a generation, divided by their number.
    adds_up = getattr(arguments, "loss_type", "") == "dapo"

    class OwnSampling(sparing(trainer, adds_up=adds_up)):  # type: ignore[misc]
        """TRL's trainer on prompts that are token ids already."""

        def _tokenize_prompts(self, prompts: list[list[int]]) -> Any:
            return prompts, None, {}

        def _generate_single_turn(self, prompts: list[list[int]], *others: Any) -> Any:
            seed = settings.seed * 1_000_003 + self.state.global_step

            def answer(everybodys: list[list[int]]) -> list[list[int]]:
                drawing = replace(decoding, seed=seed)
                return sample(model, everybodys, decoding=drawing, each_step=check, processes=base.processes)

            with _set_aside(model), speaking_as(model, CANDIDATE):
                replies = base.processes.pooled(prompts, answer)
            # GRPO's wants the sampler's log-probabilities beside the replies, or to hear that there are none.
            return (replies, None) if len(others) > 2 else replies

    def reward(
        prompts: list[list[int]], completions: list[str], completion_ids: list[list[int]], **_: Any
    ) -> list[float]:

        def score(rows: list[tuple[list[int], list[int]]]) -> list[float]:
            return reward_model.score([row[0] for row in rows], [row[1] for row in rows], check=check)

        with _set_aside(model):
            scores = base.processes.pooled(list(zip(prompts, completion_ids, strict=True)), score)
        return [
            score / reward_model.spread - settings.missing_eos_penalty * (ids[-1] not in base.ends)
            for score, ids in zip(scores, completion_ids, strict=True)
        ]

    # A generation takes different prompts; where there are fewer, they come several times.
    different = settings.rollout_size // settings.group_size
    rows = [list(prompt) for prompt in prompts] * math.ceil(different / len(prompts))
    made = OwnSampling(
        model=model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": rows}),
        processing_class=base.tokenizer,
    )
    made.eos_token_ids = sorted(base.ends)
    return made


@contextmanager
def _set_aside(model: Any) -> Iterator[None]:
    """Let another adapter speak, and go on with the policy's in the mode that it was in."""
    training = model.training
    try:
        yield
    finally:
        model.set_adapter(CANDIDATE)
        model.train(training)


def _passes(settings: TrainingSettings) -> int:
    """Forward passes over the replies of a generation."""
    return settings.rollout_size // settings.batch_size


def _check_sizes(settings: TrainingSettings) -> None:
    passes = _passes(settings) // settings.gradient_accumulation
    if (
        not passes
        or settings.rollout_size % (settings.batch_size * settings.gradient_accumulation)
        or settings.rollout_size % settings.group_size
    ):
        raise NothingToLearn(
            f"rollout_size is {settings.rollout_size}; expected a multiple of group_size ({settings.group_size}) and "
            f"of batch_size times gradient_accumulation ({settings.batch_size} x {settings.gradient_accumulation}). "
            "Change one of them."
        )
