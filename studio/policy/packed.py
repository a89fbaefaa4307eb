"""Linear layers on a CPU with their weights laid out once for the instruction set at hand, instead of at every product.

PyTorch hands fp32 products to MKL, which falls short on processors that are not its maker's. oneDNN, which PyTorch
carries too, does better once the weights lie in its own blocks. The products are the same sums of the same fp32
numbers, added up in another order. Measured on an AMD EPYC with AVX-512, one thread, a layer of 256 x 640: 63 -> 36
microseconds for 16 rows, 938 -> 379 for 256.

This module knows layers and rows; it knows no adapters, no cache and no model family.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, pad

_SMALL_WORK = 2**18
"""Rows times weights under which a plain product is quicker: oneDNN's own start costs about ten microseconds."""

_LARGE_LAYER = 2**20
"""Weights from which the packed product is at least as quick for a single row, so that no plain copy is kept."""

_WEIGHTS_PER_THREAD = 2**19
"""Weights of a layer that are worth a thread: reading them takes as long as waking it some twenty times."""

_ROWS_HINT = 64
"""The layout that oneDNN chooses for these many rows serves any number; the one for a single row does not."""


_SIZES = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of rows that are multiplied at once. oneDNN compiles a kernel for every number that it meets and keeps a
thousand of them, each of half a megabyte and half a millisecond; so it meets these only."""

_FILLED_UP = 32
"""Up to this size missing rows are filled up with zeros; more are split."""


class PackedLinear:
    """The serving side of one plain linear layer; `install` makes the layer compute through it."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._inputs, self._outputs = layer.in_features, layer.out_features
        self._weight = layer.weight.detach()
        self._bias = layer.bias.detach() if layer.bias is not None else None
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(self._weight, _ROWS_HINT)
        self._least_rows = max(2, _SMALL_WORK // self._weight.numel())

    def install(self, *, keep_plain: bool) -> None:
        """From now on the layer's forward is `forward`. Without `keep_plain` its weight gives its memory back and only
        keeps up appearances: shape, type and place, which is what PEFT looks at."""
        if not keep_plain:
            self._least_rows = 1
            hollow = torch.zeros(1, dtype=self._weight.dtype).expand(self._weight.shape)
            self._layer.weight = nn.Parameter(hollow, requires_grad=False)
            del self._weight
        self._layer.forward = self.forward  # type: ignore[method-assign]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``input W^T + bias``, for `input` of shape (..., width in)."""
        rows = input.numel() // self._inputs
        if rows < self._least_rows:
            return linear(input, self._weight, self._bias)
        flat = input.reshape(rows, self._inputs)
        result = self._product(flat) if rows in _SIZES else self._in_parts(flat)
        return result.view(*input.shape[:-1], self._outputs)

    def _in_parts(self, flat: torch.Tensor) -> torch.Tensor:
        """As many rows at a time as there is a size for, and zeros below the last ones to fill up the size."""
        rows = len(flat)
        result = flat.new_empty(rows, self._outputs)
        begin = 0
        while begin < rows:
            left = rows - begin
            size = next((size for size in _SIZES if left <= size <= _FILLED_UP), None)
            part = flat[begin:]
            if size is None:
                size = max(size for size in _SIZES if size <= left)
                part = part[:size]
            elif size > left:
                part = pad(part, (0, 0, 0, size - left))
            result[begin : begin + size] = self._product(part)[:left]
            begin += size
        return result

    def _product(self, flat: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            flat, self._packed, self._bias, "none", [], ""
        )
        return result


def pack_linears(model: nn.Module) -> int:
    """Pack every plain fp32 linear layer of `model` on a CPU, if this build of PyTorch can; return how many.

    Weights that another module uses as well (an embedding, tied) are kept plain beside the packed copy.
    """
    if not _can_pack():
        return 0
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    packed = 0
    for layer in model.modules():
        # A subclass computes something else (4-bit layers are such), and `forward` in its dictionary is a hook's.
        if type(layer) is not nn.Linear or "forward" in layer.__dict__:
            continue
        weight = layer.weight
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            continue
        keep_plain = weight.numel() < _LARGE_LAYER or owners[id(weight)] > 1
        PackedLinear(layer).install(keep_plain=keep_plain)
        packed += 1
    return packed


def threads_for(model: nn.Module) -> int:
    """How many CPU threads suit `model`: one for a small model, up to all that torch would use for a large one.

    Threads that share a product all wait for the last of them, and one that has to give its core to somebody else for a
    moment holds up the rest. Small products come by the thousand each second and lose more by that than they gain.
    Measured with mini on two cores, two threads against one: 1 row and 16 rows take 0.9 and 0.75 of the time while the
    machine is idle, but 4 and 2.3 times as long while a retraining runs beside them, though it steps back.
    """
    sizes = [layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear)]
    mean = sum(sizes) / max(1, len(sizes))
    return max(1, min(torch.get_num_threads(), round(mean / _WEIGHTS_PER_THREAD)))


def _can_pack() -> bool:
    """Whether oneDNN is there and its packed product, a part of PyTorch for its compiler, does what it should."""
    operators = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not all(
        hasattr(operators, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    ):
        return False
    x, layer = torch.arange(12.0).reshape(3, 4), nn.Linear(4, 2)
    try:
        with torch.inference_mode():
            packed = operators._reorder_linear_weight(layer.weight.detach(), _ROWS_HINT)
            result = operators._linear_pointwise(x, packed, layer.bias.detach(), "none", [], "")
            return torch.allclose(result, layer(x), atol=1e-5)
    except (RuntimeError, NotImplementedError, TypeError):
        return False
