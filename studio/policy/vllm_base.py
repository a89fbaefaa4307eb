"""What the studio knows of a base model that other machines hold: its tokenizer, its name and its limits, no weights.

Run as ``python -m studio.policy.vllm_base FOLDER`` it writes the base that adapters are trained on, so that vLLM
serves the very same function: with ``nf4`` these are the 4-bit values, unpacked (a few per cent of a weight away from
the original ones, which is 11 nats on a canary of models/mini). This module knows no server and no adapter.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.base import context_of, load_base, load_config, load_tokenizer
from training.model_files import find_model, identity_of
from training.prompt import end_of_turn_ids
from training.quantization import unpack_linears
from training.settings import TrainingSettings


@dataclass(frozen=True)
class KnownBase:
    """The base as the servers must hold it. `identity` and `quantization` are those of the trainer's manifests.

    `ends` are the tokens that end a reply, `context_tokens` the most that a prompt and its reply may take together.
    """

    tokenizer: Any
    name: str
    folder: Path
    identity: str
    quantization: str
    context_tokens: int
    ends: frozenset[int]

    def is_served_as(self, root: str) -> bool:
        """Whether `root`, the model a server says it was started with, can be this base.

        Paths differ between machines, so only the last part of a folder's or a Hub model's name is compared; what
        the model computes is proven with every adapter.
        """
        known = {Path(self.name).name, self.folder.name, exported_name(self.name, self.quantization)}
        return root == self.name or Path(root).name in known


def know_base(settings: TrainingSettings) -> KnownBase:
    """Read everything but the weights of the model that `settings` name.

    Raises `training.model_files.ModelUnavailable`.
    """
    folder, _revision = find_model(settings.model, revision=settings.revision)
    tokenizer = load_tokenizer(folder, template=settings.chat_template)
    return KnownBase(
        tokenizer=tokenizer,
        name=settings.model,
        folder=folder,
        identity=identity_of(folder),
        quantization=settings.quantization,
        context_tokens=context_of(load_config(folder), settings),
        ends=frozenset(end_of_turn_ids(tokenizer)) | _generation_ends(folder),
    )


def _generation_ends(folder: Path) -> frozenset[int]:
    """The end tokens that the model's own generation settings name."""
    from transformers import GenerationConfig

    if not (folder / "generation_config.json").is_file():
        return frozenset()
    named: Any = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    return frozenset(named if isinstance(named, list) else [] if named is None else [int(named)])


def exported_name(model: str, quantization: str) -> str:
    """What the folder is called that `export` writes, such as ``mini-nf4``."""
    return f"{Path(model).name}-{quantization}"


def export(settings: TrainingSettings, parent: Path) -> Path:
    """Write the base with its linear layers unpacked into a folder in `parent`, for vLLM to serve; return the folder.

    It takes the room of the unquantized model. Raises `training.model_files.ModelUnavailable`, and `OSError` when the
    disk is full.
    """
    base = load_base(settings)
    unpack_linears(base.model, dtype=base.model.dtype)
    folder = parent / exported_name(settings.model, settings.quantization)
    base.model.save_pretrained(str(folder))
    base.tokenizer.save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    from memory.settings import load_settings

    if len(sys.argv) != 2:
        sys.exit("Say where to write it: THUMBPRINT_MODEL=... python -m studio.policy.vllm_base FOLDER")
    print(export(load_settings(TrainingSettings), Path(sys.argv[1])))
