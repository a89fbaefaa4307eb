"""Adapters to put on a registry's shelf without training any: random LoRA weights with a fingerprint of their own.

They go through all that a trained one goes through (files, hashes, manifest, canaries computed by PEFT). It knows no
engine and no chat.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.base import BaseModel
from training.fingerprint import canary_logprobs, digest
from training.registry import Manifest, Registry


@dataclass(frozen=True)
class Prepared:
    """An adapter's folder, and the log-probabilities that its manifest will hold."""

    path: Path
    logprobs: list[float]
    base_logprobs: list[float]


def prepare(base: BaseModel, folder: Path, *, seed: int, strength: float = 0.02) -> Prepared:
    """Write an adapter of rank 16 on every linear layer; B is normal with a standard deviation of `strength`."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(deepcopy(base.model), config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=strength)
    adapted.save_pretrained(str(folder))
    numbers = [canary_logprobs(adapted, base.tokenizer, adapter=name) for name in ("default", None)]
    return Prepared(folder, *numbers)


def publish(registry: Registry, base: BaseModel, prepared: Prepared) -> str:
    """Publish the adapter under the next version; return which."""
    version = registry.reserve()
    manifest = Manifest(
        version=version,
        parent="base",
        base_model=base.name,
        base_revision=base.revision,
        base_identity=base.identity,
        quantization=base.quantization,
        method="random",
        fingerprint=digest(prepared.logprobs),
        canary_logprobs=prepared.logprobs,
        base_canary_logprobs=prepared.base_logprobs,
        code_version="benchmark",
        created_at=time.time(),
    )
    registry.publish(version, prepared.path, manifest)
    return version
