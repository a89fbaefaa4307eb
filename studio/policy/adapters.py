"""LoRA adapters on one base model, side by side: put in, routed to per row, taken out.

The base is never merged with anything and no adapter is ever "the active one": a row without a name gets the base, a
row with a name gets that adapter, and no name is used twice. This module knows PEFT; it knows no versions, no
manifests and no queue. Except for `read_adapter`, call it on the thread that owns the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file

from studio.policy.cache import KeyValues
from studio.policy.mixed import MixedLayer, Route
from training.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    AdapterRefused,
    check_config,
    check_weights,
)


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter read from disk, on the device where it will run."""

    config: LoraConfig
    tensors: dict[str, torch.Tensor]


def read_adapter(path: Path, *, device: torch.device) -> AdapterWeights:
    """Read the adapter in the folder `path`; may run on any thread. Raises `AdapterRefused` for what is not LoRA."""
    check_weights(path / ADAPTER_WEIGHTS, path.name)
    check_config(path / ADAPTER_CONFIG, path.name)
    config = LoraConfig.from_pretrained(str(path))
    config.inference_mode = True
    return AdapterWeights(config, load_file(path / ADAPTER_WEIGHTS, device=str(device)))


class Adapters:
    """The adapters on `model`, a causal language model that is used through this object only from here on."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._peft: PeftModel | None = None
        self._numbers = count(1)
        self._names: list[str] = []
        self._layers: dict[str, MixedLayer] = {}
        self._route: Route | None = None

    def put_in(self, weights: AdapterWeights) -> str:
        """Add an adapter and return the name under which rows may ask for it.

        Raises `AdapterRefused`, leaving the model as it was, when the weights do not fit the base.
        """
        name = f"adapter{next(self._numbers)}"
        try:
            if self._peft is None:
                self._peft = PeftModel(
                    self._model,
                    weights.config,
                    adapter_name=name,
                    autocast_adapter_dtype=False,
                    low_cpu_mem_usage=True,
                )
            else:
                self._peft.add_adapter(
                    name, weights.config, low_cpu_mem_usage=True, autocast_adapter_dtype=False
                )
            # No adapter is active: a row's own name decides, and forgetting it gives the base, not someone's adapter.
            self._peft.base_model.set_adapter([])
            loaded = set_peft_model_state_dict(
                self._peft, weights.tensors, adapter_name=name, low_cpu_mem_usage=True
            )
        except (ValueError, RuntimeError, KeyError) as error:
            self._remove(name)
            raise AdapterRefused(f"The adapter does not fit the base model: {error}") from error
        if any(isinstance(m, LoraLayer) and name in m.lora_embedding_A for m in self._model.modules()):
            self._remove(name)
            raise AdapterRefused(
                "The adapter changes the embeddings; only linear layers can be served side by side."
            )
        missing = [key for key in loaded.missing_keys if f".{name}." in key]
        if missing or loaded.unexpected_keys:
            self._remove(name)
            odd = (missing or loaded.unexpected_keys)[0]
            raise AdapterRefused(
                f"The adapter does not fit the base model: {len(missing)} of its matrices are missing and "
                f"{len(loaded.unexpected_keys)} belong nowhere, {odd} among them."
            )
        self._peft.requires_grad_(False)
        self._peft.eval()
        self._names.append(name)
        self._refresh()
        return name

    def take_out(self, name: str) -> None:
        """Remove an adapter and free its memory. No row may use it any more."""
        self._names.remove(name)
        self._remove(name)

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
        """Take over layers that PEFT has just made, and have all of them look at the adapters anew."""
        for name, module in self._model.named_modules():
            if isinstance(module, LoraLayer) and name not in self._layers:
                self._layers[name] = MixedLayer(module)
                self._layers[name].install()
        for layer in self._layers.values():
            layer.forget()
        self._route = None

    def _remove(self, name: str) -> None:
        if self._peft is not None and name in self._peft.peft_config:
            self._peft.delete_adapter(name)
            self._refresh()
