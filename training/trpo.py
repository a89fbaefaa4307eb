"""Trust region policy optimization: one step as long as a bound on the divergence allows (Schulman et al. 2015).

The step solves  max g.s  subject to  s F s / 2 <= max_kl  (equation 14 and appendix C) for a list of parameters, here
the policy's LoRA matrices: conjugate gradient for F^-1 g with products of F alone, the length that fills the bound,
then a line search that halves the step until the true surrogate has gained and the true divergence keeps within the
bound.

It works on flat vectors and three functions. It knows no model, no replies and no rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

Product = Callable[[Tensor], Tensor]
_RESIDUAL = 1e-10


@dataclass(frozen=True)
class Surroundings:
    """What a step must know about the objective around the parameters as they stand, in whatever batches it likes.

    `gradient` is that of the surrogate to be increased; `fisher` multiplies a vector by the Hessian of the divergence
    from the policy that acted; `measure` gives (surrogate, divergence) at the parameters' present values.
    """

    gradient: Tensor
    fisher: Product
    measure: Callable[[], tuple[float, float]]


@dataclass(frozen=True)
class Stepped:
    """How a step went: `share` of the full step that was taken, 0 when none was good enough."""

    share: float
    gained: float
    divergence: float


def trust_region_step(
    parameters: Sequence[Tensor],
    around: Surroundings,
    *,
    max_kl: float,
    damping: float,
    iterations: int,
    halvings: int = 10,
) -> Stepped:
    """Move `parameters` in place, or leave them bit-equal when no step of the line search is accepted."""
    before, _ = around.measure()
    start = parameters_to_vector(list(parameters)).detach().clone()

    def damped(vector: Tensor) -> Tensor:
        return around.fisher(vector) + damping * vector

    direction = conjugate_gradient(damped, around.gradient, iterations=iterations)
    curvature = float(direction @ damped(direction))
    if not curvature > 0:
        return Stepped(0.0, 0.0, 0.0)
    step = direction * (2 * max_kl / curvature) ** 0.5
    for halving in range(halvings):
        share = 0.5**halving
        _put(parameters, start + share * step)
        after, divergence = around.measure()
        if after > before and divergence <= max_kl:
            return Stepped(share, after - before, divergence)
    _put(parameters, start)
    return Stepped(0.0, 0.0, 0.0)


def conjugate_gradient(product: Product, target: Tensor, *, iterations: int) -> Tensor:
    """x with product(x) = target for a symmetric positive definite `product` (Hestenes and Stiefel 1952), from 0.

    Exact after as many iterations as there are different eigenvalues; it stops early once the residual is nothing.
    """
    solution = torch.zeros_like(target)
    residual, search = target.clone(), target.clone()
    size = residual @ residual
    for _ in range(iterations):
        if float(size) < _RESIDUAL:
            break
        image = product(search)
        length = size / (search @ image)
        solution = solution + length * search
        residual = residual - length * image
        following = residual @ residual
        search = residual + following / size * search
        size = following
    return solution


def flat_gradient(scalar: Tensor, parameters: Sequence[Tensor], *, keep_graph: bool = False) -> Tensor:
    """The gradient of `scalar` as one vector, zeros for parameters that it does not depend on.

    With `keep_graph` it can be differentiated once more.
    """
    found = torch.autograd.grad(scalar, list(parameters), create_graph=keep_graph, allow_unused=True)
    parts = [
        torch.zeros_like(parameter) if part is None else part
        for part, parameter in zip(found, parameters, strict=True)
    ]
    return torch.cat([part.reshape(-1) for part in parts])


def hessian_product(scalar: Tensor, parameters: Sequence[Tensor], vector: Tensor) -> Tensor:
    """The Hessian of `scalar` times `vector` (Pearlmutter 1994): the gradient of (gradient . vector)."""
    return flat_gradient(flat_gradient(scalar, parameters, keep_graph=True) @ vector, parameters).detach()


def _put(parameters: Sequence[Tensor], values: Tensor) -> None:
    with torch.no_grad():
        vector_to_parameters(values, list(parameters))
