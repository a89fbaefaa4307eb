"""REINFORCE Leave-One-Out against the reward model, on TRL's trainer (Ahmadian et al. 2024).

The reward of a reply is the reward model's, less kl_coefficient times its log-ratio to the reference; its advantage A
is how far it lies above the mean of the other replies to its prompt. The loss of a batch is  -mean min(q A, clip(q) A)
with q the ratio of a whole reply's probability to that when it was sampled. How it is set up is
`training.group_training`'s to know.
"""

from __future__ import annotations

import sys
from typing import Any

from training.group_training import learner


def trainer_of(shared: dict[str, Any]) -> tuple[type[Any], Any]:
    """TRL's trainer and its arguments, `shared` among them."""
    from trl import RLOOConfig, RLOOTrainer

    return RLOOTrainer, RLOOConfig(**shared)


learn = learner(trainer_of)

if __name__ == "__main__":
    from training.command import main

    sys.exit(main("rloo"))
