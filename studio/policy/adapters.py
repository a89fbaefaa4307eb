"""LoRA adapters on one base model, side by side: put in, routed to per row, taken out.

The base is never merged with anything and no adapter is ever "the active one": a row without a name gets the base, a
row with a name gets that adapter, and no name is used twice. PEFT's files are read and its arithmetic is kept, but its
wrapping of a model is not used: it takes the model's thread for ten decode steps and more, while replies wait. That the
two agree is proven for every adapter by its fingerprint, which the trainer computes through PEFT.

This module knows no versions, no manifests and no queue. Except for `read_adapter`, call it on the thread that owns the
model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

from studio.policy.cache import KeyValues
from studio.policy.mixed import LowRank, MixedLayer, Route
from studio.policy.packed import pack_linears
from training.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    AdapterRefused,
    check_config,
    check_weights,
)

_MATRIX = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter read from disk, on the device where it will run: the update of each layer, by the layer's name."""

    updates: dict[str, LowRank]


def read_adapter(path: Path, *, device: torch.device) -> AdapterWeights:
    """Read the adapter in the folder `path`; may run on any thread. Raises `AdapterRefused` for what is not LoRA."""
    check_weights(path / ADAPTER_WEIGHTS, path.name)
    check_config(path / ADAPTER_CONFIG, path.name)
    config = LoraConfig.from_pretrained(str(path))
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(path / ADAPTER_WEIGHTS, device=str(device)).items():
        found = _MATRIX.fullmatch(name)
        if found is None:
            raise AdapterRefused(
                f"The adapter holds {name[:80]!r}; only matrices on linear layers can be served side by side."
            )
        sides.setdefault(found["layer"], {})[found["side"]] = tensor
    return AdapterWeights({layer: _update(layer, both, config) for layer, both in sides.items()})


def _update(layer: str, sides: dict[str, torch.Tensor], config: LoraConfig) -> LowRank:
    """A layer's matrices with PEFT's scaling: alpha / r, or alpha / sqrt(r) with rank stabilization (Kalajdzievski
    2023)."""
    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), layer), config.r)
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), layer), config.lora_alpha)
    a, b = sides.get("A"), sides.get("B")
    if a is None or b is None or a.ndim != 2 or b.ndim != 2 or not rank == a.shape[0] == b.shape[1]:
        shapes = {side: tuple(tensor.shape) for side, tensor in sorted(sides.items())}
        raise AdapterRefused(
            f"The adapter's matrices on {layer} have shapes {shapes}; expected A of ({rank}, width in) and B of "
            f"(width out, {rank})."
        )
    return LowRank(a, b, alpha / (math.sqrt(rank) if config.use_rslora else rank))


class Adapters:
    """The adapters on `model`, a causal language model that is used through this object only from here on."""

    def __init__(self, model: Any) -> None:
        self._model = model
        pack_linears(model)
        self._modules = dict(model.named_modules())
        self._numbers = count(1)
        self._names: list[str] = []
        self._layers: dict[str, MixedLayer] = {}
        self._route: Route | None = None

    def put_in(self, weights: AdapterWeights) -> str:
        """Add an adapter and return the name under which rows may ask for it.

        Raises `AdapterRefused`, leaving the model as it was, when the weights do not fit the base.
        """
        for path, update in weights.updates.items():
            found = _widths(self._modules.get(path))
            if found != update.widths:
                has = "no such linear layer" if found is None else f"{found[0]} inputs and {found[1]} outputs"
                raise AdapterRefused(
                    f"The adapter does not fit the base model: it changes {path} with {update.widths[0]} inputs and "
                    f"{update.widths[1]} outputs, where the model has {has}."
                )
        name = f"adapter{next(self._numbers)}"
        for path, update in weights.updates.items():
            if path not in self._layers:
                self._layers[path] = MixedLayer(self._modules[path])
                self._layers[path].install()
            self._layers[path].put_in(name, update)
        self._names.append(name)
        self._refresh()
        return name

    def take_out(self, name: str) -> None:
        """Remove an adapter and free its memory. No row may use it any more."""
        self._names.remove(name)
        for layer in self._layers.values():
            layer.take_out(name)
        self._refresh()

    def __call__(
        self,
        ids: torch.Tensor,
        *,
        adapters: Sequence[str | None],
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        cache: KeyValues,
    ) -> torch.Tensor:
        """One forward pass; see `studio.policy.batch.Forward`. Raises `LookupError` for an adapter not put in."""
        self._set_route(adapters)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def logits(self, ids: torch.Tensor, *, adapter: str | None) -> torch.Tensor:
        """Logits at every position of `ids` (1, length) under one adapter, without a cache."""
        self._set_route([adapter] * ids.shape[0])
        logits: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits
        return logits

    def _set_route(self, adapters: Sequence[str | None]) -> None:
        unknown = {name for name in adapters if name is not None} - set(self._names)
        if unknown:
            raise LookupError(f"The engine has no adapter {', '.join(sorted(unknown))}; it was taken out.")
        if self._route is None or self._route.adapters != tuple(adapters):
            self._route = Route(adapters, loaded=self._names, device=self._model.device)
            for layer in self._layers.values():
                layer.route = self._route

    def _refresh(self) -> None:
        """Have every layer look at the adapters anew."""
        for layer in self._layers.values():
            layer.forget()
        self._route = None


def _widths(module: Any) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer of any kind; None for what is none."""
    # bitsandbytes' layers are such too, and their stored weights have another shape.
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return None
