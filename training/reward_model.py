"""A reward model on the shared base: a LoRA adapter and a scalar head that reads a reply.

``python -m training.reward_model`` fits one, examines it and saves it (`training.reward_command`).

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
from typing import Any, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_config,
    check_weights,
    read_json_object,
    sha256_of,
)
from training.base import BaseModel
from training.cpu_products import hasten
from training.generation import speaking_as
from training.lines import at_places, hidden_states, lines_of
from training.out_of_memory import MicroBatch
from training.policy_settings import RewardPooling
from training.reward_phrases import Phrases
from training.reward_validation import RewardReport

REWARD = "reward"
"""The adapter's name in a `PeftModel`."""
_PHRASES = "phrases"
_HEAD, _MANIFEST = "head.safetensors", "reward_model.json"
_ROWS = 32
"""Replies scored at a time."""


class RewardModelRefused(ValueError):
    """A saved reward model that must not be used, with the reason and the way out."""


class RewardModel:
    """Rewards of replies under the adapter `REWARD` of `model`, a `PeftModel` over `base`, read by `head`.

    The head reads the state of a reply's last token, or, where `pooling` is ``mean``, all of its tokens: the reward is
    then the mean of what each is worth. `phrases`, if there are any, add what they find. `spread` is the standard
    deviation of the rewards of the training replies, a natural unit for whoever adds something to a reward.
    """

    def __init__(
        self,
        base: BaseModel,
        model: Any,
        head: nn.Linear,
        *,
        spread: float = 1.0,
        pooling: RewardPooling = "last",
        phrases: Phrases | None = None,
    ) -> None:
        self.base, self.model, self.head, self.phrases = base, model, head, phrases
        self.spread, self.pooling, self._scored = spread, pooling, MicroBatch(_ROWS)

    def rewards(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> Tensor:
        """One batch's rewards [rows], with gradients where they are switched on; `REWARD` must be the active
        adapter."""
        pad = self.base.tokenizer.pad_token_id
        lines = lines_of(prompts, replies, pad=pad, device=self.base.device)
        states = hidden_states(self.model, lines)
        if self.pooling == "last":
            found = self._worth(at_places(states, lines.last))
        else:
            said = torch.where(lines.mask, self._worth(at_places(states, lines.before + 1)), 0.0)
            found = said.sum(-1) / lines.mask.sum(-1)
        if self.phrases is None:
            return found
        worth: Tensor = self.phrases([tuple(reply) for reply in replies])
        return found + worth

    def _worth(self, states: Tensor) -> Tensor:
        """The head's number [...] for states [..., hidden]."""
        found: Tensor = self.head(states).squeeze(-1)
        return found

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        *,
        check: Callable[[], None] = lambda: None,
    ) -> list[float]:
        """Rewards of any number of replies (none empty), in their order; all processes of the base take part."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]) + len(replies[row]))
        mine = self.base.processes.mine(order)
        found: dict[int, float] = {}

        def score(rows: list[int]) -> None:
            check()
            batch = self.rewards([prompts[row] for row in rows], [replies[row] for row in rows])
            found.update(zip(rows, batch.tolist(), strict=True))

        with speaking_as(self.model, REWARD):
            self._scored.over(mine, score)
        gathered = self.base.processes.gathered([found[row] for row in mine])
        whole = dict(zip(order, gathered, strict=True))
        return [whole[row] for row in range(len(prompts))]

    def save(self, folder: Path, *, report: RewardReport, feedback_ids: Sequence[str]) -> Path:
        """Write adapter, head and manifest into `folder`, the manifest last, and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MANIFEST).unlink(missing_ok=True)
        self.model.save_pretrained(str(folder), selected_adapters=[REWARD], save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        tensors = {name: value.detach().cpu() for name, value in self.head.state_dict().items()}
        if self.phrases is not None:
            tensors[_PHRASES] = self.phrases.worth.detach().cpu()
        save_file(tensors, folder / _HEAD)
        files = (f"{REWARD}/{ADAPTER_WEIGHTS}", f"{REWARD}/{ADAPTER_CONFIG}", _HEAD)
        manifest = {
            "base_model": self.base.name,
            "base_identity": self.base.identity,
            "quantization": self.base.quantization,
            "spread": self.spread,
            "pooling": self.pooling,
            "phrases": 0 if self.phrases is None else self.phrases.longest,
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
        hasten(model)
        head = new_head(base)
        tensors = load_file(folder / _HEAD, device=str(base.device))
        phrases = new_phrases(base, longest=manifest.get("phrases", 0))
        if phrases is not None:
            phrases.load_state_dict({"worth": tensors.pop(_PHRASES)})
        head.load_state_dict(tensors)
        found = cls(
            base,
            model,
            head,
            spread=float(manifest["spread"]),
            pooling=_pooling_of(manifest, folder),
            phrases=phrases,
        )
        return found, RewardReport.from_dict(manifest["report"])


def new_phrases(base: BaseModel, *, longest: int) -> Phrases | None:
    """A table of phrases that are worth nothing yet; None for phrases of no length."""
    return Phrases(longest, device=base.device) if longest else None


def new_head(base: BaseModel) -> nn.Linear:
    """A fresh scalar head in float32: small weights drawn from torch's random state, no bias yet."""
    hidden = base.model.config.get_text_config().hidden_size
    head = nn.Linear(hidden, 1, device=base.device, dtype=torch.float32)
    nn.init.normal_(head.weight, std=(hidden + 1) ** -0.5)
    nn.init.zeros_(head.bias)
    return head


def _pooling_of(manifest: dict[str, Any], folder: Path) -> RewardPooling:
    """How the head reads; manifests of before there was a choice do not say it."""
    for pooling in get_args(RewardPooling):
        if manifest.get("pooling", "last") == pooling:
            return pooling  # type: ignore[no-any-return]
    raise RewardModelRefused(
        f"The reward model in {folder} reads replies by {manifest['pooling']!r}; expected one of "
        f"{', '.join(get_args(RewardPooling))}. Fit it again."
    )


def holds_reward_model(folder: Path) -> bool:
    """Whether `folder` holds a reward model that was saved to the end."""
    return (folder / _MANIFEST).is_file()


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


if __name__ == "__main__":
    from training.reward_command import main

    sys.exit(main())
