"""Group Relative Policy Optimization against the reward model, on TRL's trainer (Shao et al. 2024).

The advantage A of a reply is how far its reward lies above the mean of its group, in standard deviations of the group.
The loss is that of tokens, -min(q A, clip(q) A) + kl_coefficient * k3, with q the ratio of a token's probability to
that when it was sampled and k3 the estimate of its divergence from the reference, summed over the tokens of a batch and
divided by their number (the ``dapo`` normalization: Yu et al. 2025). How it is set up is `training.group_training`'s to
know.
"""

from __future__ import annotations

import sys
from typing import Any

from training.group_training import learner


def trainer_of(shared: dict[str, Any]) -> tuple[type[Any], Any]:
    """TRL's trainer and its arguments, `shared` among them."""
    from trl import GRPOConfig, GRPOTrainer

    return GRPOTrainer, GRPOConfig(**shared)


learn = learner(trainer_of)

if __name__ == "__main__":
    from training.command import main

    sys.exit(main("grpo"))
