"""The trust region step on problems whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn, tensor

from training.trpo import Surroundings, conjugate_gradient, hessian_product, trust_region_step


def on_a_quadratic(start, slope, curvature):
    """Surrogate slope . x, divergence (x - start) diag(curvature) (x - start) / 2."""
    parameter = nn.Parameter(start.clone())

    def measure():
        moved = parameter.detach() - start
        return float(slope @ parameter.detach()), float(moved @ (curvature * moved)) / 2

    return parameter, Surroundings(slope, lambda vector: curvature * vector, measure)


def test_the_step_on_a_quadratic_fills_the_trust_region():
    """g = (2, 4), F = diag(1, 4): F^-1 g = (2, 1), its curvature g F^-1 g = 4 + 4 = 8. With max_kl 0.01 the length is
    sqrt(2 * 0.01 / 8) = 0.05, the step (0.1, 0.05), the gain 2 * 0.1 + 4 * 0.05 = 0.4, the divergence
    (0.01 + 4 * 0.0025) / 2 = 0.01.
    """
    parameter, around = on_a_quadratic(torch.ones(2), tensor([2.0, 4.0]), tensor([1.0, 4.0]))
    stepped = trust_region_step([parameter], around, max_kl=0.010001, damping=0.0, iterations=10)
    assert parameter.tolist() == pytest.approx([1.1, 1.05], abs=1e-4)
    assert stepped.share == 1.0
    assert stepped.gained == pytest.approx(0.4, abs=1e-3)
    assert stepped.divergence == pytest.approx(0.01, abs=1e-4)


def test_damping_shortens_the_step():
    """F + 1 = diag(2, 5): (1, 0.8) with curvature 2 + 3.2 = 5.2, length sqrt(0.02 / 5.2) = 0.0620174."""
    parameter, around = on_a_quadratic(torch.zeros(2), tensor([2.0, 4.0]), tensor([1.0, 4.0]))
    trust_region_step([parameter], around, max_kl=0.01, damping=1.0, iterations=10)
    assert parameter.tolist() == pytest.approx([0.0620174, 0.0496139], abs=1e-6)


def test_a_step_that_diverges_more_than_its_curvature_said_is_halved():
    """The divergence is nine times the quadratic's: a full step has 0.09, a half 0.0225, a quarter 0.005625 <= 0.01."""
    parameter, around = on_a_quadratic(torch.zeros(2), tensor([2.0, 4.0]), tensor([1.0, 4.0]))
    steeper = Surroundings(
        around.gradient, around.fisher, lambda: (around.measure()[0], 9 * around.measure()[1])
    )
    assert trust_region_step([parameter], steeper, max_kl=0.01, damping=0.0, iterations=10).share == 0.25


def test_parameters_stay_where_nothing_gains():
    parameter, around = on_a_quadratic(tensor([0.3, 0.7]), tensor([2.0, 4.0]), tensor([1.0, 4.0]))
    flat = Surroundings(around.gradient, around.fisher, lambda: (0.0, 0.0))
    assert trust_region_step([parameter], flat, max_kl=0.01, damping=0.0, iterations=10).share == 0.0
    assert torch.equal(parameter.detach(), tensor([0.3, 0.7]))


def test_no_gradient_no_step():
    parameter, around = on_a_quadratic(torch.zeros(2), torch.zeros(2), tensor([1.0, 4.0]))
    assert trust_region_step([parameter], around, max_kl=0.01, damping=0.1, iterations=10).share == 0.0


def test_conjugate_gradient_solves_a_system_in_as_many_steps_as_it_has_sizes():
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = matrix @ matrix.T + torch.eye(6, dtype=torch.float64)
    target = torch.arange(6, dtype=torch.float64)
    found = conjugate_gradient(lambda vector: matrix @ vector, target, iterations=6)
    assert torch.allclose(matrix @ found, target, atol=1e-6)


def test_the_hessian_product_of_a_cubic():
    """x^2 y at (1, 2): Hessian ((2y, 2x), (2x, 0)) = ((4, 2), (2, 0)); times (1, 1) = (6, 2)."""
    x, y = nn.Parameter(tensor([1.0])), nn.Parameter(tensor([2.0]))
    assert hessian_product((x.square() * y).sum(), [x, y], tensor([1.0, 1.0])).tolist() == [6.0, 2.0]
