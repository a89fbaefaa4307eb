"""An adapter of zeros, through which a vLLM server is asked for the base.

vLLM's CPU kernels give rows without an adapter the adapter of the last slot when both are in one batch (vllm issue
48421: row -1 of a list is its last one), and no error says so. Rows under an adapter are right everywhere, so the base
is asked for under one that changes nothing. Loading it also shows, before anybody trains, that a server takes adapters
at run time and sees their folder.

It knows the base's files and writes two small ones; it knows no server.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

_LAYER = ".o_proj.weight"
"""The projection after attention: nearly every family has it, and vLLM packs it with no other."""
_FLOATS = ("F64", "F32", "F16", "BF16")


def null_adapter(base: Path, *, shelf: Path, identity: str) -> Path | None:
    """Write the adapter for the model in folder `base` beside the others on `shelf`, once; return its folder.

    None when the model has no layer that is known to take an adapter. Raises `OSError` when it cannot be written.
    """
    folder = shelf / f".null-{identity}"
    if folder.is_dir():
        return folder
    layer = _first_layer(base)
    if layer is None:
        return None
    name, (outputs, inputs) = layer
    staging = shelf / f".staging-null-{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    _write(staging, name, outputs=outputs, inputs=inputs)
    try:
        os.rename(staging, folder)
    except OSError:  # another studio was quicker
        shutil.rmtree(staging)
        if not folder.is_dir():
            raise
    return folder


def _write(folder: Path, name: str, *, outputs: int, inputs: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    prefix = f"base_model.model.{name.removesuffix('.weight')}"
    zeros: dict[str, Any] = {
        f"{prefix}.lora_A.weight": np.zeros((1, inputs), dtype=np.float32),
        f"{prefix}.lora_B.weight": np.zeros((outputs, 1), dtype=np.float32),
    }
    save_file(zeros, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)  # the servers may be another user
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 1,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [name.split(".")[-2]],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _first_layer(base: Path) -> tuple[str, tuple[int, int]] | None:
    """Name and shape (outputs, inputs) of the first such layer in the model's files."""
    from safetensors import safe_open

    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            for name in sorted(weights.keys()):
                found = weights.get_slice(name) if name.endswith(_LAYER) else None
                if found is not None and found.get_dtype() in _FLOATS and len(found.get_shape()) == 2:
                    outputs, inputs = found.get_shape()
                    return name, (int(outputs), int(inputs))
    return None
