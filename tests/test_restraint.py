"""How far an adapter is scaled down: as far as its gain allows, further where it forgets, not without evidence."""

from __future__ import annotations

import pytest
import torch
from judged import quick_settings
from tiny import save_tiny_adapter, save_tiny_base

from memory.schema import Message
from training.base import load_base
from training.labelling import Pool
from training.restraint import SCALES, restrain

POOLS = [Pool((Message("user", f"What about {n}?"),), ("Tea is hot.", "Wait ten minutes.")) for n in range(3)]


class Taste:
    """A judge who gives the win rate set for the scale at which the adapter stands."""

    def __init__(self, model, wins, *, has_opinion=True):
        self.model, self.wins, self.has_opinion = model, wins, has_opinion
        self.full = weights(model)

    def seeing_through(self, embed):
        return self

    def scores(self, replies):
        return [0.0 for _ in replies]

    def __call__(self, prompt, reply_A, reply_B):
        scale = float(weights(self.model)[0].norm() / self.full[0].norm())
        return self.wins[min(SCALES, key=lambda known: abs(known - scale))]


def weights(model):
    return [value.detach().clone() for name, value in model.named_parameters() if "lora_B" in name]


@pytest.fixture
def loaded(tmp_path, request):
    from peft import PeftModel

    base = load_base(quick_settings().model_copy(update={"model": str(save_tiny_base(tmp_path / "base"))}))
    folder = save_tiny_adapter(
        tmp_path / "adapter", base.model, seed=1, scale=getattr(request, "param", 1e-4)
    )
    return base, PeftModel.from_pretrained(base.model, str(folder), adapter_name="default")


def scaled(loaded, wins, *, pools=POOLS, **judge):
    base, model = loaded
    before = weights(model)
    found = restrain(
        base,
        model,
        pools,
        Taste(model, wins, **judge),
        adapter="default",
        settings=quick_settings(max_new_tokens=4),
        check=lambda: None,
    )
    for full, now in zip(before, weights(model), strict=True):
        torch.testing.assert_close(now, found.scale * full)
    return found


def test_a_gain_that_stays_is_had_at_the_smallest_scale(loaded):
    assert scaled(loaded, dict.fromkeys(SCALES, 0.9)).scale == SCALES[-1]


def test_a_gain_that_fades_stops_the_scale_where_two_points_of_it_are_lost(loaded):
    found = scaled(loaded, {1.0: 0.9, 0.8: 0.885, 0.6: 0.875, 0.45: 0.9})
    assert found.scale == 0.8
    assert [round(win, 6) for win, _ in found.tried.values()] == [0.9, 0.885, 0.875]


@pytest.mark.parametrize("loaded", [3.0], indirect=True)
def test_an_adapter_that_forgets_is_scaled_down_whatever_the_gain(loaded, monkeypatch):
    monkeypatch.setattr("training.generation._SURE", 0.1)  # random weights are sure of little
    found = scaled(loaded, {1.0: 0.9, 0.8: 0.7, 0.6: 0.6, 0.45: 0.5})
    forgotten = {scale: share for scale, (_, share) in found.tried.items()}
    assert forgotten[1.0] > 0.015
    assert found.scale < 1.0
    assert forgotten[found.scale] <= 0.015 or found.scale == SCALES[-1]


@pytest.mark.parametrize(("pools", "opinion"), [([], True), (POOLS, False)])
def test_without_replies_or_an_opinion_the_adapter_stays_as_it_is(loaded, pools, opinion):
    found = scaled(loaded, dict.fromkeys(SCALES, 0.9), pools=pools, has_opinion=opinion)
    assert (found.scale, found.tried) == (1.0, {})
