"""Products through oneDNN: the plain ones' numbers, there, back and twice back, and where they keep out of the way."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from training import cpu_products
from training.cpu_products import hasten


def pair(inputs=96, outputs=160, *, bias=True):
    """A plain layer and one of the same weights that was hastened."""
    torch.manual_seed(0)
    plain = nn.Linear(inputs, outputs, bias=bias)
    quick = deepcopy(plain)
    if not hasten(quick):
        pytest.skip("this build of PyTorch has no oneDNN")
    return plain, quick


@pytest.fixture
def products(monkeypatch):
    """How often oneDNN multiplied on the way there."""
    counted = []
    apply = cpu_products._Product.apply

    def counting(*arguments):
        counted.append(tuple(arguments[0].shape))
        return apply(*arguments)

    monkeypatch.setattr(cpu_products._Product, "apply", counting)
    return counted


@pytest.mark.parametrize("shape", [(64, 96), (3, 37, 96), (130, 96)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_the_plain_layer(shape, bias, products):
    plain, quick = pair(bias=bias)
    x = torch.randn(shape, requires_grad=True)
    weights = torch.randn(*shape[:-1], 160)
    found = []
    for layer in (plain, quick):
        output = layer(x)
        (output * weights).sum().backward()
        found.append([output, x.grad, *(parameter.grad for parameter in layer.parameters())])
        x.grad = None
    assert products
    for expected, actual in zip(*found, strict=True):
        assert torch.allclose(expected, actual, atol=2e-4)


def test_rows_are_filled_up_to_few_different_numbers():
    found = {cpu_products._filled_up(rows) for rows in range(18, 300)}
    assert found == {32, 64, 128, 192, 256, 320}
    assert cpu_products._filled_up(1100) == 1152


def test_layers_that_read_the_same_rows_keep_them_once():
    """What is saved for the way back is the rows themselves, not a copy that was filled up."""
    _, quick = pair()
    kept = []
    x = torch.randn(130, 96, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda value: kept.append(value) or value, lambda value: value
    ):
        quick(x)
    assert {tuple(value.shape) for value in kept} == {(130, 96), (160, 96)}
    assert all(value.data_ptr() in (x.data_ptr(), quick.weight.data_ptr()) for value in kept)


def test_it_can_be_differentiated_twice():
    """The Hessian of f(W) = sum((x W^T)^4) times a direction, by differentiating twice, is that of plain products."""
    plain, quick = pair(bias=False)
    x, direction = torch.randn(64, 96) / 10, torch.randn(160, 96)
    found = []
    for layer in (plain, quick):
        (slope,) = torch.autograd.grad(layer(x).pow(4).sum(), layer.weight, create_graph=True)
        (bend,) = torch.autograd.grad((slope * direction).sum(), layer.weight)
        found.append(bend)
    assert torch.allclose(*found, rtol=1e-3, atol=1e-4)


def test_it_keeps_out_of_small_products_other_types_and_autocast(products):
    _, quick = pair()
    assert torch.equal(quick(torch.ones(2, 96)), linear(torch.ones(2, 96), quick.weight, quick.bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert quick(torch.randn(64, 96)).dtype == torch.bfloat16
    half = quick.to(torch.bfloat16)
    assert half(torch.randn(64, 96, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert not products


def test_layers_that_compute_something_else_are_left_alone():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    model = nn.Sequential(nn.Linear(96, 160), Doubled(160, 160), nn.Linear(160, 96))
    model[2].forward = lambda input: input
    assert hasten(model) == 1
    assert hasten(model) == 0
    assert "forward" not in model[1].__dict__


def test_a_copy_multiplies_by_its_own_weights():
    _, quick = pair()
    copy = deepcopy(quick)
    with torch.no_grad():
        copy.weight.zero_()
        copy.bias.zero_()
        x = torch.randn(64, 96)
        assert copy(x).abs().max() == 0
        assert quick(x).abs().max() > 0


def test_without_onednn_every_layer_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    layer = nn.Linear(96, 160)
    assert hasten(layer) == 0
    assert "forward" not in layer.__dict__
