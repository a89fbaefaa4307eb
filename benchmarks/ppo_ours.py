"""`benchmarks.ppo`'s job by this repository's PPO: ``python -m benchmarks.ppo_ours JOB FOLDER [--as-shipped]``.

Writes the adapter and an `Answer` into FOLDER. It runs in a process of its own, so that the memory is its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.measuring import Meter, resident_mb, tensor_mb
from benchmarks.ppo_job import Answer, Job
from training.method import Step
from training.settings import TrainingSettings


def main() -> None:
    """Do the job, leave the answer, exit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--as-shipped", action="store_true", help="stop a pass on KL, as the defaults do")
    options = parser.parse_args()
    job = Job.read(options.job)
    stop = TrainingSettings.model_fields["stop_kl"].default if options.as_shipped else 0.0
    answer_to(job, options.folder, stop_kl=stop).write(options.folder)


def answer_to(job: Job, folder: Path, *, stop_kl: float) -> Answer:
    """Load, optimize, save."""
    import torch

    from training.actor_critic import beside
    from training.base import load_base
    from training.ppo import optimize
    from training.publishing import save_candidate
    from training.reward_model import RewardModel

    torch.set_num_threads(job.threads)
    settings = job.settings(stop_kl=stop_kl)
    base = load_base(settings)
    reward_model, _ = RewardModel.load(base, Path(job.reward_model))
    actors = beside(reward_model, settings=settings, previous=None)
    weights, loaded = tensor_mb(actors.model, actors.value_head, reward_model.head), resident_mb()
    steps: list[Step] = []
    with Meter() as meter:
        optimize(actors, reward_model, job.prompts, ptx=[], settings=settings, on_step=steps.append)
    save_candidate(actors.policy_alone(), folder / "adapter")
    return Answer(
        taken=meter.taken,
        model_mb=weights,
        loaded_mb=loaded,
        episodes=len(steps) * job.rollout,
        scores=[step.values["objective/scores"] for step in steps],
        kl=[step.values["objective/kl"] for step in steps],
    )


if __name__ == "__main__":
    main()
