"""PPO's losses against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from training.policy_losses import (
    clipped_policy_loss,
    clipped_value_loss,
    entropy,
    kl_terms,
    masked_mean,
    next_coefficient,
    reinforce_loss,
    whiten,
)

ALL = tensor([[True, True, True, True]])


def test_the_clipped_surrogate_of_four_tokens():
    """Ratios 1.5, 1.5, 0.5, 0.5 with advantages 1, -1, 1, -1 and clip 0.2; the loss is -min(ratio A, clipped A):

    1.5 up, wanted: -min(1.5, 1.2) = -1.2, clipped.     1.5 up, unwanted: -min(-1.5, -1.2) = 1.5.
    0.5 down, wanted: -min(0.5, 0.8) = -0.5.            0.5 down, unwanted: -min(-0.5, -0.8) = 0.8, clipped.
    Mean (-1.2 + 1.5 - 0.5 + 0.8) / 4 = 0.15, two of four clipped. k2 = mean(log^2) / 2 =
    (2 * 0.405465^2 + 2 * 0.693147^2) / 4 / 2 = 0.161214; the mean ratio is 1.
    """
    logprobs = tensor([[1.5, 1.5, 0.5, 0.5]]).log().requires_grad_()
    found = clipped_policy_loss(logprobs, torch.zeros(1, 4), tensor([[1.0, -1.0, 1.0, -1.0]]), ALL, clip=0.2)
    assert float(found.loss) == pytest.approx(0.15, abs=1e-6)
    assert found.clip_fraction == 0.5
    assert found.approximate_kl == pytest.approx(0.161214, abs=1e-6)
    assert found.ratio == pytest.approx(1.0, abs=1e-6)
    found.loss.backward()
    assert [value != 0 for value in logprobs.grad[0].tolist()] == [False, True, True, False]


def test_what_is_masked_does_not_count_even_if_it_is_no_number():
    mask = tensor([[True, False]])
    logprobs = tensor([[0.0, math.inf]])
    found = clipped_policy_loss(logprobs, tensor([[0.0, 0.0]]), tensor([[2.0, 9.0]]), mask, clip=0.2)
    assert float(found.loss) == -2.0
    assert float(masked_mean(tensor([[3.0, math.nan]]), mask)) == 3.0


def test_the_clipped_value_of_three_tokens():
    """Old values 0, clip 0.2, returns 1. V = 0.5: max(0.25, 0.8^2 = 0.64), clipped. V = 0.1: 0.81 either way.
    V = -1: max(4, (-0.2 - 1)^2 = 1.44) = 4. Half the mean: (0.64 + 0.81 + 4) / 3 / 2 = 0.908333; one of three clipped.
    """
    values, old = tensor([[0.5, 0.1, -1.0]]), torch.zeros(1, 3)
    loss, share = clipped_value_loss(values, old, torch.ones(1, 3), ALL[:, :3], clip=0.2)
    assert float(loss) == pytest.approx(0.908333, abs=1e-6)
    assert share == pytest.approx(1 / 3)


def test_k1_and_k3_of_one_token():
    """pi = 0.5, ref = 0.25: k1 = log 2 = 0.693147; k3 = 0.25/0.5 - 1 + log 2 = 0.193147. The other way round:
    k1 = -0.693147, k3 = 2 - 1 - 0.693147 = 0.306853.
    """
    pi, ref = tensor([0.5, 0.25]).log(), tensor([0.25, 0.5]).log()
    assert kl_terms(pi, ref, estimator="k1").tolist() == pytest.approx([0.693147, -0.693147], abs=1e-6)
    assert kl_terms(pi, ref, estimator="k3").tolist() == pytest.approx([0.193147, 0.306853], abs=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_both_estimators_are_the_divergence_on_average(estimator):
    """Over pi = (0.7, 0.3) and ref = (0.4, 0.6): 0.7 log(7/4) + 0.3 log(1/2) = 0.183786."""
    pi, ref = tensor([0.7, 0.3]), tensor([0.4, 0.6])
    mean = (pi * kl_terms(pi.log(), ref.log(), estimator=estimator)).sum()
    assert float(mean) == pytest.approx(0.183786, abs=1e-6)


def test_whitening_leaves_mean_0_and_variance_1():
    """1, 2, 3 and something masked: mean 2, unbiased variance 1, so -1, 0, 1; with the mean kept 1, 2, 3."""
    values, mask = tensor([[1.0, 2.0, 3.0, 99.0]]), tensor([[True, True, True, False]])
    assert whiten(values, mask).tolist()[0] == pytest.approx([-1, 0, 1, 0], abs=1e-6)
    assert whiten(values, mask, shift_mean=False).tolist()[0] == pytest.approx([1, 2, 3, 0], abs=1e-6)
    assert whiten(tensor([[5.0]]), tensor([[True]])).tolist() == [[0.0]]


def test_reinforce_follows_the_advantage():
    """-(2 * -1 + -1 * -3) / 2 = -0.5."""
    loss = reinforce_loss(tensor([[-1.0, -3.0]]), tensor([[2.0, -1.0]]), tensor([[True, True]]))
    assert float(loss) == -0.5


def test_entropy_of_a_coin_and_of_certainty():
    logprobs = tensor([[0.0, 0.0], [100.0, 0.0]]).log_softmax(-1)
    assert entropy(logprobs).tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)


def test_the_coefficient_grows_with_too_much_divergence_and_shrinks_with_too_little():
    """Twice the target is clipped to +0.2: 0.1 * (1 + 0.2 * 64 / 640) = 0.102. A tenth below: 0.1 * (1 - 0.1 * 0.1)."""
    steer = {"target": 6.0, "replies": 64, "horizon": 640}
    assert next_coefficient(0.1, measured=12.0, **steer) == pytest.approx(0.102)
    assert next_coefficient(0.1, measured=5.4, **steer) == pytest.approx(0.099)
    assert next_coefficient(0.1, measured=-50.0, **steer) == pytest.approx(0.098)
