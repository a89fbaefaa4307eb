"""Fully sharded data parallelism of the frozen base: while gradients are computed, each process holds a part of it.

LoRA's matrices, their gradients and their optimizer state are small and stay whole everywhere; what is large is the
base, which nobody changes. So its decoder layers are given to FSDP2 (`fully_shard`; Zhao et al. 2023) before there is
any adapter: a layer is put together where a forward or backward pass reaches it, and taken apart behind it. Sampling
and scoring want it whole, and get it so: outside of `sharded` nobody waits for the others.

It knows decoder layers. It knows no adapters, no trainer and no loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from training.base import BaseModel


def prepare_layers(model: Any) -> None:
    """Divide the decoder layers of `model` among the processes of the default group, and put them together again.

    All weights are frozen before, because each layer makes them anew, as they were then, whenever it is put together.
    """
    from torch.distributed.fsdp import fully_shard

    model.requires_grad_(False)
    for layer in layers_of(model):
        fully_shard(layer)
    _put_together(model)
    for layer in layers_of(model):
        for module in layer.modules():
            # FSDP takes a layer apart when somebody asks for its weights. The process that saves an adapter would then
            # wait for the others, who save nothing.
            module._state_dict_pre_hooks.clear()


@contextmanager
def sharded(base: BaseModel, *, apart: bool = True) -> Iterator[None]:
    """Hold only this process's part of the base's layers, for gradient passes that all processes make alike.

    Without `apart`, and where the processes do not share the base's memory at all, it stays whole.
    """
    if not (apart and base.processes.shards):
        yield
        return
    for layer in layers_of(base.model):
        layer.set_reshard_after_forward(True, recurse=False)
        layer.set_reshard_after_backward(True, recurse=False)
        layer.reshard()
    try:
        yield
    finally:
        _put_together(base.model)


def layers_of(model: Any) -> list[Any]:
    """The decoder layers: the longest list of modules of one kind."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(([*modules] for modules in lists), key=len, default=[])


def _put_together(model: Any) -> None:
    for layer in layers_of(model):
        layer.unshard()
        layer.set_reshard_after_forward(False, recurse=False)
        layer.set_reshard_after_backward(False, recurse=False)
