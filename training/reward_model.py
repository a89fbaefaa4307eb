"""A reward model on the shared base: a LoRA adapter and a scalar head at the last token of a reply.

``python -m training.reward_model [SETTINGS]`` fits one on the ledger, examines it on the held-out part and saves it:
exit code 0 if PPO may use it, 3 if it is below the bar, 4 if there is too little to learn from.

The base is frozen and may carry other adapters at the same time; only the adapter `REWARD` speaks here. Reward
differences are log-odds; the head's bias puts the mean reward of the training replies at 0, which no loss could. It
knows no policy. What is good enough is for `training.reward_validation` to say.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from memory.database import NewerDatabaseError, StorageError, open_database
from memory.ledger import Ledger
from memory.settings import load_settings
from training.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_config,
    check_weights,
    read_json_object,
    sha256_of,
)
from training.base import BaseModel, load_base
from training.generation import speaking_as
from training.lines import at_places, hidden_states, lines_of
from training.model_files import ModelUnavailable
from training.orderings import orderings_of, split_orderings
from training.reward_validation import RewardReport, problem_with
from training.settings import TrainingSettings
from training.trigger import readiness
from training.views import Feedback, preference_view, read_feedback

REWARD = "reward"
"""The adapter's name in a `PeftModel`."""
_HEAD, _MANIFEST = "head.safetensors", "reward_model.json"
_ROWS = 32
"""Replies scored at a time."""


class RewardModelRefused(ValueError):
    """A saved reward model that must not be used, with the reason and the way out."""


class RewardModel:
    """Rewards of replies under the adapter `REWARD` of `model`, a `PeftModel` over `base`, read by `head`.

    `spread` is the standard deviation of the rewards of the training replies, a natural unit for whoever adds something
    to a reward.
    """

    def __init__(self, base: BaseModel, model: Any, head: nn.Linear, *, spread: float = 1.0) -> None:
        self.base, self.model, self.head, self.spread = base, model, head, spread

    def rewards(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> Tensor:
        """One batch's rewards [rows], with gradients where they are switched on; `REWARD` must be the active
        adapter."""
        pad = self.base.tokenizer.pad_token_id
        lines = lines_of(prompts, replies, pad=pad, device=self.base.device)
        states = hidden_states(self.model, lines)
        found: Tensor = self.head(at_places(states, lines.last)).squeeze(-1)
        return found

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        *,
        check: Callable[[], None] = lambda: None,
    ) -> list[float]:
        """Rewards of any number of replies (none empty), in their order."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]) + len(replies[row]))
        found = [0.0] * len(prompts)
        with speaking_as(self.model, REWARD):
            for start in range(0, len(order), _ROWS):
                check()
                rows = order[start : start + _ROWS]
                batch = self.rewards([prompts[row] for row in rows], [replies[row] for row in rows])
                for row, reward in zip(rows, batch.tolist(), strict=True):
                    found[row] = reward
        return found

    def save(self, folder: Path, *, report: RewardReport, feedback_ids: Sequence[str]) -> Path:
        """Write adapter, head and manifest into `folder`, the manifest last, and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MANIFEST).unlink(missing_ok=True)
        self.model.save_pretrained(str(folder), selected_adapters=[REWARD], save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        tensors = {name: value.detach().cpu() for name, value in self.head.state_dict().items()}
        save_file(tensors, folder / _HEAD)
        files = (f"{REWARD}/{ADAPTER_WEIGHTS}", f"{REWARD}/{ADAPTER_CONFIG}", _HEAD)
        manifest = {
            "base_model": self.base.name,
            "base_identity": self.base.identity,
            "quantization": self.base.quantization,
            "spread": self.spread,
            "report": report.to_dict(),
            "feedback_ids": sorted(set(feedback_ids)),
            "hashes": {name: sha256_of(folder / name) for name in files},
        }
        unfinished = folder / f"{_MANIFEST}.part"
        unfinished.write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / _MANIFEST)
        return folder

    @classmethod
    def load(cls, base: BaseModel, folder: Path) -> tuple[RewardModel, RewardReport]:
        """What `save` wrote, and what was measured then. Raises `RewardModelRefused`, `AdapterRefused`.

        `base.model` must carry no adapters; the base's identity must be the one that it was fitted on.
        """
        from peft import PeftModel

        manifest = _checked_manifest(folder, base)
        model = PeftModel.from_pretrained(base.model, str(folder / REWARD), REWARD, is_trainable=False)
        head = new_head(base)
        head.load_state_dict(load_file(folder / _HEAD, device=str(base.device)))
        report = RewardReport.from_dict(manifest["report"])
        return cls(base, model, head, spread=float(manifest["spread"])), report


def new_head(base: BaseModel) -> nn.Linear:
    """A fresh scalar head in float32: small weights drawn from torch's random state, no bias yet."""
    hidden = base.model.config.get_text_config().hidden_size
    head = nn.Linear(hidden, 1, device=base.device, dtype=torch.float32)
    nn.init.normal_(head.weight, std=(hidden + 1) ** -0.5)
    nn.init.zeros_(head.bias)
    return head


def _checked_manifest(folder: Path, base: BaseModel) -> dict[str, Any]:
    """The manifest of a whole, unchanged reward model of this very base."""
    path = folder / _MANIFEST
    if not path.is_file():
        raise RewardModelRefused(
            f"{folder} holds no {_MANIFEST}: it is no reward model, or was never finished. Run `python -m "
            "training.reward_model`."
        )
    manifest = read_json_object(path.read_text(encoding="utf-8"), _MANIFEST)
    for name, expected in manifest["hashes"].items():
        if not (folder / name).is_file() or sha256_of(folder / name) != expected:
            raise RewardModelRefused(
                f"{folder / name} is missing or was changed. Fit the reward model again."
            )
    if manifest["base_identity"] != base.identity:
        raise RewardModelRefused(
            f"The reward model in {folder} was fitted on base {manifest['base_model']} "
            f"({manifest['base_identity']}), but this is {base.name} ({base.identity}). Set THUMBPRINT_MODEL to that "
            "base or fit it again."
        )
    check_weights(folder / REWARD / ADAPTER_WEIGHTS, REWARD)
    check_config(folder / REWARD / ADAPTER_CONFIG, REWARD)
    return manifest


class RewardModelSettings(TrainingSettings):
    """Fit a reward model on the feedback in the data folder, examine it on the held-out part and save it.

    Exit codes: 0 PPO may use it, 3 it is below the bar, 4 there is too little to learn from, 1 failed.
    """

    output: Path = Path()
    """Folder to save the reward model in. Empty: reward_model in the data folder."""


def main(flags: Sequence[str] | None = None) -> int:
    """Run the command with `flags` (None: those of the process) and return its exit code."""
    try:
        settings = load_settings(RewardModelSettings, sys.argv[1:] if flags is None else flags)
    except ValidationError as error:
        print(f"These settings do not work:\n{error}", file=sys.stderr)
        return 1
    try:
        database = open_database(settings.resolved_database_url)
    except (StorageError, NewerDatabaseError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        return _fit_and_save(read_feedback(Ledger(database)), settings)
    except (ModelUnavailable, StorageError, OSError, ArithmeticError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        database.close()


def _fit_and_save(feedback: Feedback, settings: RewardModelSettings) -> int:
    from training.reward_fitting import encode_orderings, examine, fit

    view = preference_view(feedback, share=settings.heldout_share, least=settings.min_heldout_pairs)
    if not (ready := readiness(view, settings)).ready:
        print(ready.sentence)
        return 4
    train, heldout = split_orderings(orderings_of(feedback), view.train_prompts)
    base = load_base(settings)
    reward_model = fit(base, encode_orderings(base, train, settings=settings), settings=settings)
    report = examine(reward_model, encode_orderings(base, heldout, settings=settings))
    folder = settings.data_dir / "reward_model" if settings.output == Path() else settings.output
    reward_model.save(folder, report=report, feedback_ids=[ordering.feedback_id for ordering in train])
    print(json.dumps(report.to_dict(), indent=2))
    problem = problem_with(report, settings)
    print(problem or f"PPO may use it: --method ppo --reward-model {folder}")
    return 3 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
