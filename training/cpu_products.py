"""Products of linear layers on a CPU, there and back, through oneDNN instead of MKL.

PyTorch hands fp32 products to MKL, which falls short on processors that are not its maker's; oneDNN, which PyTorch
carries too, does not. The numbers are the same sums, added up in another order. Measured on an AMD EPYC with AVX-512,
one thread, 1,664 rows, in milliseconds, MKL and oneDNN: a layer of 256 x 640 5.6 and 2.5, LoRA's products beside it 2.0
and 0.8; a whole step of learning on replies takes two thirds of its time.

Weights stay where they are, so that they may be trained, sharded, saved and copied as ever. It knows layers and rows;
it knows no adapters, no loss and no model family. `studio.policy.packed` is the server's counterpart, for few rows.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

_SMALL_WORK = 2**18
"""Rows times weights under which the plain product is quicker."""

_FINEST, _STEPS = 64, 8
"""oneDNN compiles a kernel for every number of rows that it meets, which takes a millisecond and 0.1 MB, and keeps a
thousand. So rows are filled up with zeros: to a power of two, or one of eight steps between two of them, 64 apart at
least."""


def hasten(model: nn.Module) -> int:
    """Let every plain linear layer of `model` multiply through oneDNN where that is possible; how many are new to it.

    A layer goes on as before for anything but fp32 on a CPU, and under autocast. To be called again once the model has
    got an adapter.
    """
    if not _can_multiply():
        return 0
    found = 0
    for layer in model.modules():
        # A subclass computes something else (4-bit layers are such), and `forward` in its dictionary is somebody's.
        if type(layer) is nn.Linear and "forward" not in layer.__dict__:
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
            found += 1
    return found


def _forward(layer: nn.Linear, input: Tensor) -> Tensor:
    """``input W^T + bias``, for `input` of shape (..., width in)."""
    weight, bias = layer.weight, layer.bias
    rows = input.numel() // layer.in_features
    if rows * layer.in_features * layer.out_features < _SMALL_WORK or not _is_plain(input, weight):
        return linear(input, weight, bias)
    flat = input.reshape(rows, layer.in_features)
    product: Tensor = _Product.apply(flat, weight, bias)  # type: ignore[no-untyped-call]
    return product.view(*input.shape[:-1], layer.out_features)


class _Product(torch.autograd.Function):
    """x W^T + b for x [rows, inputs], W [outputs, inputs], b [outputs] or None, as often differentiable as one likes:
    the gradients are such products again. What is kept for them is x itself, which several layers may share.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(x, weight)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(_filled(x), weight, bias, "none", [], "")
        return product[: len(x)]

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = context.saved_tensors
        apply: Any = _Product.apply
        of_x = of_weight = of_bias = None
        if context.needs_input_grad[0]:
            of_x = apply(gradient, weight.t(), None)
        if context.needs_input_grad[1]:
            # The narrower side as the rows: oneDNN is several times as quick that way round.
            outer, inner = _filled(gradient).t(), _filled(x).t()
            narrow = weight.shape[0] <= weight.shape[1]
            of_weight = apply(outer, inner, None) if narrow else apply(inner, outer, None).t()
        if context.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_x, of_weight, of_bias


def _is_plain(input: Tensor, weight: Tensor) -> bool:
    """Whether both are fp32 on a CPU, and to be multiplied as that."""
    return (
        input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def _filled(rows: Tensor) -> Tensor:
    """`rows` with zeros below them, up to a number of rows that there is a kernel for."""
    missing = _filled_up(len(rows)) - len(rows)
    return pad(rows, (0, 0, 0, missing)) if missing else rows


def _filled_up(rows: int) -> int:
    power = 1 << (rows - 1).bit_length()
    if power <= _FINEST:
        return power
    step = max(_FINEST, power // 2 // _STEPS)
    return -(-rows // step) * step


def _can_multiply() -> bool:
    """Whether oneDNN is there and its product, a part of PyTorch for its compiler, does what it should."""
    mkldnn: Any = torch.backends.mkldnn
    if not mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    x, weight = torch.arange(12.0).reshape(3, 4), torch.arange(8.0).reshape(2, 4)
    try:
        with torch.no_grad():
            there = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
            back = torch.ops.mkldnn._linear_pointwise(there, weight.t(), None, "none", [], "")
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return torch.allclose(there, x @ weight.t()) and torch.allclose(back, there @ weight)
