"""Group Relative Policy Optimization against the reward model, on TRL's trainer (Shao et al. 2024).

The advantage A of a reply is how far its reward lies above the mean of its group, in standard deviations of the group.
The loss is that of tokens, -min(q A, clip(q) A) + kl_coefficient * k3, with q the ratio of a token's probability to
that when it was sampled and k3 the estimate of its divergence from the reference, summed over the tokens of a batch and
divided by their number (the ``dapo`` normalization: Yu et al. 2025). How it is set up is `training.group_training`'s to
know.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.base import BaseModel
from training.group_training import learn_in_groups
from training.method import Material, Step
from training.settings import TrainingSettings


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
    """A reward model, the bar, and GRPO, as `training.method.Method` asks.

    Raises `NothingToLearn` for a reward model below the bar and where no prompt leaves room for a reply.
    """
    return learn_in_groups(
        base,
        material,
        trainer_of,
        settings=settings,
        folder=folder,
        previous=previous,
        on_step=on_step,
        check=check,
    )


def trainer_of(shared: dict[str, Any]) -> tuple[type[Any], Any]:
    """TRL's trainer and its arguments, `shared` among them."""
    from trl import GRPOConfig, GRPOTrainer

    return GRPOTrainer, GRPOConfig(**shared)


if __name__ == "__main__":
    from training.command import main

    sys.exit(main("grpo"))
