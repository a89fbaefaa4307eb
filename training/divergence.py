"""When a loss is no number any more: back to the weights from before, which gave one.

A step that breaks a training shows only in the next pass, so what is kept is the state that last went through a whole
pass with finite numbers. It knows parameters, gradients and figures; it knows no model and saves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class LastGood:
    """The values of `parameters` when they last proved to be good."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = list(parameters)
        self._kept = [value.detach().clone() for value in self._parameters]

    def keep(self) -> None:
        """The values as they are have just given finite numbers."""
        with torch.no_grad():
            for kept, value in zip(self._kept, self._parameters, strict=True):
                kept.copy_(value)

    def restore(self) -> None:
        """Set the parameters back to the last good values."""
        with torch.no_grad():
            for kept, value in zip(self._kept, self._parameters, strict=True):
                value.copy_(kept)

    def gradients_are_finite(self) -> bool:
        """Whether no gradient holds a number that is none."""
        norms = [value.grad.norm() for value in self._parameters if value.grad is not None]
        return not norms or bool(torch.stack(norms).isfinite().all())


def broken_figure(figures: Mapping[str, float]) -> str:
    """The first figure that is not finite, as ``name became value``; empty if all are."""
    for name, value in figures.items():
        if not math.isfinite(value):
            return f"{name} became {value}"
    return ""
