"""Several LoRA adapters in one batch with the work of one: what each linear layer computes while it serves.

PEFT's own mixed batches pick the rows of each adapter out of the batch, layer by layer, which on a small model costs
more than the model. Here the A matrices of all adapters stand under each other and the B matrices beside each other;
one product gives every row its update under every adapter, a mask keeps its own (and brings the scaling in), and a
second product sums them up: ``base(x) + ((x A^T) * mask) B^T``. The function is PEFT's (Hu et al. 2021, section 4.1).

This module knows rows, names and matrices; it knows no requests and loads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear

Layout = tuple[tuple[str, int, float], ...]
"""What a stack holds, in order: adapter, rank, scaling."""


@dataclass(frozen=True)
class LowRank:
    """One layer's update under one adapter, ``scaling * (x A^T) B^T``: A (rank, width in), B (width out, rank)."""

    a: torch.Tensor
    b: torch.Tensor
    scaling: float

    @property
    def widths(self) -> tuple[int, int]:
        """Inputs and outputs of the layer that this fits."""
        return self.a.shape[1], self.b.shape[0]


class Route:
    """Which adapter each row of the pass under way runs under; None is the base."""

    def __init__(
        self, adapters: Sequence[str | None], *, loaded: Sequence[str], device: torch.device
    ) -> None:
        self.adapters = tuple(adapters)
        self._device = device
        used = {name for name in self.adapters if name is not None}
        # One adapter's matrices are used where they lie. Any mixture uses the stack of all, so that one stack a layer
        # is enough whatever mixtures come.
        self.names: tuple[str, ...] = tuple(used) if len(used) < 2 else tuple(loaded)
        self._masks: dict[Layout, torch.Tensor] = {}

    def mask(self, layout: Layout) -> torch.Tensor:
        """Shape (rows, 1, sum of ranks): the adapter's scaling where the rank belongs to the row's adapter, else 0."""
        found = self._masks.get(layout)
        if found is None:
            rows = [
                [scaling if name == own else 0.0 for name, rank, scaling in layout for _ in range(rank)]
                for own in self.adapters
            ]
            found = self._masks[layout] = torch.tensor(rows, device=self._device)[:, None]
        return found


class MixedLayer:
    """The serving side of one linear layer; `install` makes the layer compute through it."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        # Not the module's call: nobody hooks into it, and it costs as much as a small product.
        self._base = layer.forward
        self._updates: dict[str, LowRank] = {}
        self._stacks: dict[tuple[str, ...], tuple[torch.Tensor, torch.Tensor, Layout] | None] = {}
        self.route: Route | None = None

    def install(self) -> None:
        """From now on the layer's forward is `forward`. Its parameters stay where they are."""
        self._layer.forward = self.forward

    def put_in(self, name: str, update: LowRank) -> None:
        """Have rows routed to `name` get `update`."""
        self._updates[name] = update

    def take_out(self, name: str) -> None:
        """Forget the update of `name`, if there is one."""
        self._updates.pop(name, None)

    def forget(self) -> None:
        """Drop the stacks: adapters have come or gone."""
        self._stacks.clear()

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The base's result for `x` (rows, columns, width), with each row's update under its own adapter."""
        result: torch.Tensor = self._base(x, *args, **kwargs)
        route = self.route
        if route is None or not route.names:
            return result
        stack = self._stack(route.names)
        if stack is None:
            return result
        a, b, layout = stack
        inner = linear(x.to(a.dtype), a) * route.mask(layout).to(a.dtype)
        return result + linear(inner, b).to(result.dtype)

    def _stack(self, names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor, Layout] | None:
        """A of shape (sum of ranks, width in), B of shape (width out, sum of ranks); None if no adapter is on this
        layer."""
        if names not in self._stacks:
            self._stacks[names] = self._build(names)
        return self._stacks[names]

    def _build(self, names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor, Layout] | None:
        present = {name: self._updates[name] for name in names if name in self._updates}
        if not present:
            return None
        layout = tuple((name, update.a.shape[0], update.scaling) for name, update in present.items())
        a, b = [update.a for update in present.values()], [update.b for update in present.values()]
        if len(present) == 1:
            return a[0], b[0], layout
        return torch.cat(a), torch.cat(b, dim=1), layout
