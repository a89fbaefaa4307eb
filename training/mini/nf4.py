"""NF4 as the studio serves it, inside training: quantize and dequantize linear weights, gradients passing through.

The sixteen levels are the quantiles of a normal distribution from QLoRA (Dettmers et al., 2023, appendix E), one
absolute maximum per block of 64 weights. Same result as bitsandbytes' `load_in_4bit` without double quantization.
Knows tensors only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

BLOCK = 64
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def quantize_and_back(weight: Tensor) -> Tensor:
    """The weight as it reads after a round trip through NF4. Its number of elements must divide by 64."""
    if weight.numel() % BLOCK:
        raise ValueError(
            f"A weight of shape {tuple(weight.shape)} does not divide into blocks of {BLOCK} values."
        )
    levels = torch.tensor(LEVELS, dtype=torch.float32, device=weight.device)
    blocks = weight.detach().float().reshape(-1, BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    borders = (levels[1:] + levels[:-1]) / 2
    nearest = levels[torch.bucketize(blocks / scale, borders)]
    return (nearest * scale).reshape(weight.shape).to(weight.dtype)


class StraightThrough(nn.Module):
    """Forward: the NF4 weight. Backward: as if nothing had happened (Bengio et al., 2013)."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (quantize_and_back(weight) - weight).detach()


def feel_quantization(model: nn.Module) -> None:
    """From now on the forward passes of all linear layers, bar the tied output head, see NF4 weights."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("lm_head"):
            parametrize.register_parametrization(module, "weight", StraightThrough())


def forget_quantization(model: nn.Module) -> None:
    """Undo `feel_quantization`; the full-precision weights stay."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
