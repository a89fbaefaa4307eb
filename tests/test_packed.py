"""Packed linear layers: the same function as the plain ones, for any number of rows, in memory that does not grow."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from studio.policy import packed
from studio.policy.packed import pack_linears, threads_for
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.skipif(not packed._can_pack(), reason="this build of PyTorch has no oneDNN")
LARGE = 1024


def layers(*, bias: bool) -> tuple[nn.Linear, nn.Linear, nn.Sequential]:
    torch.manual_seed(0)
    small, large = nn.Linear(96, 160, bias=bias), nn.Linear(160, LARGE * 8, bias=bias)
    return small, large, nn.Sequential(small, large)


@pytest.mark.parametrize("bias", [True, False])
def test_packed_layers_compute_what_the_plain_ones_do(bias: bool) -> None:
    *_, plain = layers(bias=bias)
    model = deepcopy(plain)
    assert pack_linears(model) == 2
    with torch.inference_mode():
        for rows in (1, 2, 3, 5, 8, 9, 16, 31, 33, 64, 100, 257, 300):
            x = torch.randn(rows, 96)
            torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-4)
        x = torch.randn(3, 7, 96)
        torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-4)


def test_large_layer_keeps_one_copy_of_its_weights_and_its_looks() -> None:
    small, large, model = layers(bias=False)
    pack_linears(model)
    assert large.weight.untyped_storage().nbytes() == 4
    assert large.weight.shape == (LARGE * 8, 160) and large.weight.dtype == torch.float32
    assert small.weight.untyped_storage().nbytes() == small.weight.numel() * 4


def test_tied_weights_stay_with_the_embedding() -> None:
    embedding, head = nn.Embedding(LARGE * 4, 300), nn.Linear(300, LARGE * 4, bias=False)
    head.weight = embedding.weight
    model = nn.ModuleList([embedding, head])
    before = embedding(torch.tensor([7])).clone()
    assert pack_linears(model) == 1
    assert torch.equal(embedding(torch.tensor([7])), before)
    with torch.inference_mode():
        x = torch.randn(4, 300)
        torch.testing.assert_close(head(x), x @ embedding.weight.T, rtol=1e-4, atol=1e-4)


def test_only_plain_fp32_layers_are_packed_and_only_once() -> None:
    class Odd(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return -super().forward(input)

    model = nn.ModuleList([nn.Linear(8, 8), Odd(8, 8), nn.Linear(8, 8).to(torch.bfloat16)])
    assert pack_linears(model) == 1
    assert pack_linears(model) == 0


def test_only_a_few_numbers_of_rows_are_ever_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps a kernel for each number it has seen."""
    seen: set[int] = set()
    product = packed.PackedLinear._product

    def note(self: Any, flat: torch.Tensor) -> torch.Tensor:
        seen.add(len(flat))
        return product(self, flat)

    monkeypatch.setattr(packed.PackedLinear, "_product", note)
    layer = nn.Linear(LARGE, LARGE)
    pack_linears(layer)
    with torch.inference_mode():
        for rows in range(1, 600):
            assert layer(torch.zeros(rows, LARGE)).shape == (rows, LARGE)
    assert seen <= set(packed._SIZES)


def test_small_models_get_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert threads_for(tiny_model(tiny_tokenizer())) == 1
    assert threads_for(nn.Sequential(nn.Linear(2048, 1024, device="meta"))) == 4
    assert threads_for(nn.Sequential(nn.Linear(8192, 8192, device="meta"))) == 8
