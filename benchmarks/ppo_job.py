"""The one piece of work that `benchmarks.ppo` gives to both implementations, and what each of them answers.

A job is everything that may matter to a result: base model, prompts as token ids, reward model, and each number that
the algorithm has. It knows neither implementation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import Taken
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Job:
    """What to do. `rollout` replies are sampled at a time and learned from `epochs` times, in minibatches of `batch`
    rows with one optimizer step each.

    `reward_model` is the folder of a saved `training.reward_model.RewardModel`; scores are its rewards over its spread.
    """

    model: str
    quantization: str
    prompts: list[list[int]]
    reward_model: str
    episodes: int
    rollout: int
    batch: int
    epochs: int
    reply_tokens: int
    learning_rate: float
    temperature: float
    kl_coefficient: float
    clip: float
    discount: float
    decay: float
    missing_eos_penalty: float
    lora_rank: int
    lora_alpha: int
    seed: int
    threads: int

    def settings(self, **changes: Any) -> TrainingSettings:
        """The job in our own settings: nothing that only one of the two has is switched on."""
        named = {
            "model": self.model,
            "quantization": self.quantization,
            "reward_model": self.reward_model,
            "ppo_iterations": self.episodes // self.rollout,
            "rollout_size": self.rollout,
            "batch_size": self.batch,
            "gradient_accumulation": 1,
            "ppo_epochs": self.epochs,
            "max_new_tokens": self.reply_tokens,
            "ppo_learning_rate": self.learning_rate,
            "rollout_temperature": self.temperature,
            "kl_coefficient": self.kl_coefficient,
            "clip_policy": self.clip,
            "clip_value": self.clip,
            "discount": self.discount,
            "gae_decay": self.decay,
            "missing_eos_penalty": self.missing_eos_penalty,
            "lora_rank": self.lora_rank,
            "lora_alpha": self.lora_alpha,
            "seed": self.seed,
            "ptx_weight": 0.0,
            "entropy_weight": 0.0,
            "stop_kl": 0.0,
        }
        return TrainingSettings(**(named | changes))

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Job:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Answer:
    """What an implementation took for a job and how its own metrics went, one value an iteration.

    `model_mb` are all weights that it held before the first step, `loaded_mb` the resident memory then.
    """

    taken: Taken
    model_mb: float
    loaded_mb: float
    episodes: int
    scores: list[float]
    kl: list[float]

    def write(self, folder: Path) -> None:
        (folder / "answer.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Answer:
        content = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        return cls(**content | {"taken": Taken(**content["taken"])})
