"""REINFORCE Leave-One-Out against the reward model, on TRL's trainer (Ahmadian et al. 2024).

The reward of a reply is the reward model's, less kl_coefficient times its log-ratio to the reference; its advantage A
is how far it lies above the mean of the other replies to its prompt. The loss of a batch is  -mean min(q A, clip(q) A)
with q the ratio of a whole reply's probability to that when it was sampled. How it is set up is
`training.group_training`'s to know.
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
    """A reward model, the bar, and RLOO, as `training.method.Method` asks.

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
    from trl import RLOOConfig, RLOOTrainer

    return RLOOTrainer, RLOOConfig(**shared)


if __name__ == "__main__":
    from training.command import main

    sys.exit(main("rloo"))
