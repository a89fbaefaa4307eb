"""How the base's linear weights are stored, and what that comes to on a CPU: plain layers with the stored values.

It knows bitsandbytes and its layers; it knows no files, no settings beyond the name of a quantization, and no adapters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.settings import Quantization


def quantization_config(quantization: Quantization, *, dtype: torch.dtype, sharded: bool = False) -> Any:
    """What transformers is told so that it quantizes while it loads; None for ``none``.

    ``nf4``: NormalFloat 4 with double quantization (Dettmers et al. 2023, section 3). ``int8``: LLM.int8() (Dettmers et
    al. 2022), one scale for each row of a weight. What is to be `sharded` lies in memory as `dtype`, the only way in
    which FSDP can divide it.
    """
    from transformers import BitsAndBytesConfig

    if quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=dtype if sharded else torch.uint8,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if quantization == "int8" else None


def unpack_linears(model: nn.Module, *, dtype: torch.dtype) -> int:
    """Replace every bitsandbytes linear layer by a plain one that holds the dequantized weight; count them.

    For 4 bits the function computed stays the same, since bitsandbytes multiplies by these very values after unpacking
    them at every call (258 against 235 tokens a second, one row of mini on one core). For 8 bits it is the function
    that bitsandbytes computes on a CPU while training. Outside training it rounds the inputs to 8 bits as well, except
    in columns that it picks by looking at all rows of a pass, so a reply would depend on who else is being answered;
    the plain layer does not. Memory grows to that of an unquantized model.
    """
    import bitsandbytes as bnb

    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, bnb.nn.Linear4bit):
                setattr(parent, name, _plain(child, _unpacked_4bit(child), dtype))
            elif isinstance(child, bnb.nn.Linear8bitLt):
                setattr(parent, name, _plain(child, _unpacked_8bit(child), dtype))
            else:
                continue
            replaced += 1
    _forget_quantization(model)
    return replaced


def _unpacked_4bit(layer: Any) -> torch.Tensor:
    import bitsandbytes.functional as bnb_functional

    weight: torch.Tensor = bnb_functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight


def _unpacked_8bit(layer: Any) -> torch.Tensor:
    """Row scales stay with the weight until the layer is first used, then they move to its state."""
    scales: torch.Tensor = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    stored: torch.Tensor = layer.weight.data if layer.state.CB is None else layer.state.CB
    return stored.float() * (scales.float()[:, None] / 127)


def _plain(layer: Any, weight: torch.Tensor, dtype: torch.dtype) -> nn.Linear:
    plain = nn.Linear(
        layer.in_features, layer.out_features, bias=layer.bias is not None, device=weight.device, dtype=dtype
    )
    with torch.no_grad():
        plain.weight.copy_(weight)
        if layer.bias is not None:
            plain.bias.copy_(layer.bias)
    return plain.requires_grad_(False)


def _forget_quantization(model: nn.Module) -> None:
    """From here on the model is an ordinary one: trainers must not take it for a quantized one."""
    for attribute in ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"):
        if getattr(model, attribute, False):
            setattr(model, attribute, False)
    for attribute in ("hf_quantizer", "quantization_method"):
        if hasattr(model, attribute):
            delattr(model, attribute)
    config: Any = getattr(model, "config", None)
    if config is not None and hasattr(config, "quantization_config"):
        del config.quantization_config
