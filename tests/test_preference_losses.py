"""The reward model's losses and figures against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from training.preference_losses import (
    calibration_error,
    kendall,
    listwise_loss,
    pairwise_losses,
    pearson,
    reliability,
    spearman,
    thumb_losses,
    weighted_mean,
)


def test_a_decided_pair_costs_the_surprise_of_its_lead_less_the_margin():
    """Lead 2 - 1 = 1, margin 0.5: -log sigmoid(0.5) = log(1 + e^-0.5) = log 1.606531 = 0.474077.

    Lead -1: log(1 + e^1.5) = log 5.481689 = 1.701413.
    """
    losses = pairwise_losses(tensor([2.0, 0.0]), tensor([1.0, 1.0]), tied=tensor([False, False]), margin=0.5)
    assert losses.tolist() == pytest.approx([0.474077, 1.701413], abs=1e-6)


def test_a_tie_has_what_neither_side_takes():
    """Margin m = 0.5. At lead 0 each side wins with sigmoid(-0.5) = 0.377541, so a tie has 1 - 2 * 0.377541 =
    0.244919, and -log 0.244919 = 1.406829. At lead 1: 1 - sigmoid(0.5) - sigmoid(-1.5) = 1 - 0.622459 - 0.182426 =
    0.195115, and -log of it = 1.634167.
    """
    losses = pairwise_losses(tensor([1.0, 2.0]), tensor([1.0, 1.0]), tied=tensor([True, True]), margin=0.5)
    assert losses.tolist() == pytest.approx([1.406829, 1.634167], abs=2e-5)


@pytest.mark.parametrize("lead", [-3.0, -0.4, 0.0, 1.7])
def test_the_three_answers_to_a_pair_have_all_the_probability(lead):
    better, worse = tensor([lead]), tensor([0.0])
    wins = pairwise_losses(better, worse, tied=tensor([False]), margin=0.7)
    loses = pairwise_losses(worse, better, tied=tensor([False]), margin=0.7)
    ties = pairwise_losses(better, worse, tied=tensor([True]), margin=0.7)
    assert float((-wins).exp() + (-loses).exp() + (-ties).exp()) == pytest.approx(1.0, abs=1e-6)


def test_a_tie_pulls_rewards_together_and_needs_a_margin():
    better = tensor([1.0], requires_grad=True)
    pairwise_losses(better, tensor([0.0]), tied=tensor([True]), margin=0.5).sum().backward()
    assert float(better.grad) > 0
    with pytest.raises(ValueError, match="need one above 0"):
        pairwise_losses(better, tensor([0.0]), tied=tensor([True]), margin=0.0)


def test_a_ranking_costs_what_its_neighbours_cost():
    """Rewards 3, 1, 2: -log sigmoid(2) - log sigmoid(-1) = 0.126928 + 1.313262 = 1.440190."""
    assert float(listwise_loss(tensor([3.0, 1.0, 2.0]))) == pytest.approx(1.440190, abs=1e-6)
    assert float(listwise_loss(tensor([0.0, 0.0]))) == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="two or more replies"):
        listwise_loss(tensor([1.0]))


def test_raters_weigh_in_the_mean():
    """(1 * 0.2 + 3 * 1.0) / (1 + 3) = 0.8."""
    assert float(weighted_mean(tensor([0.2, 1.0]), tensor([1.0, 3.0]))) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="none below 0"):
        weighted_mean(tensor([0.2]), tensor([0.0]))


def test_rank_correlations_of_four():
    """1 2 3 4 against 1 3 2 4: five pairs agree, one does not, tau = 4/6; squared rank differences sum to 2,
    rho = 1 - 6 * 2 / (4 * 15) = 0.8.
    """
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert spearman([1, 2, 3, 4], [10, 300, 20, 4000]) == pytest.approx(0.8)
    assert spearman([1, 2, 3], [5, 5, 5]) == kendall([1, 2, 3], [5, 5, 5]) == 0.0
    assert pearson([1, 2, 3], [-2, -4, -6]) == pytest.approx(-1)


def test_ties_share_their_rank():
    """Ranks 1, 2.5, 2.5 against 1, 2, 3: rho = 1.5 / sqrt(1.5 * 2) = 0.866025; tau-b = 2 / sqrt(2 * 3) = 0.816497."""
    assert spearman([1, 2, 2], [1, 2, 3]) == pytest.approx(0.866025, abs=1e-6)
    assert kendall([1, 2, 2], [1, 2, 3]) == pytest.approx(0.816497, abs=1e-6)


def test_calibration_is_the_gap_between_sure_and_right():
    """Bin 0.9..1: sure 0.95 and 0.95, right once of twice, gap 0.45, two of three. Bin 0.6..0.7: sure 0.6, right, gap
    0.4, one of three. (2 * 0.45 + 0.4) / 3 = 0.433333. Certainty falls into the last bin.
    """
    assert calibration_error(reliability([0.95, 0.95, 0.6], [True, False, True])) == pytest.approx(
        0.433333, abs=1e-6
    )
    assert calibration_error(reliability([1.0], [True])) == 0.0
    assert calibration_error(()) == 0.0


def test_the_reliability_diagram_keeps_the_bins_that_are_not_empty():
    bins = reliability([0.55, 0.52, 0.95], [True, False, True])
    assert [(found.correct, found.count) for found in bins] == [(0.5, 2), (1.0, 1)]
    assert [found.confidence for found in bins] == pytest.approx([0.535, 0.95])


def test_a_thumb_is_a_choice_against_a_reply_of_reward_0():
    """Up at reward 1: log(1 + e^-1) = 0.313262. Down at reward 1: log(1 + e) = 1.313262."""
    losses = thumb_losses(tensor([1.0, 1.0]), tensor([True, False]))
    assert losses.tolist() == pytest.approx([0.313262, 1.313262], abs=1e-6)


def test_a_margin_of_nothing_is_bradley_terry():
    loss = pairwise_losses(tensor([0.3]), tensor([0.1]), tied=tensor([False]), margin=0.0)
    assert torch.allclose(loss, torch.log1p(torch.exp(tensor([-0.2]))))
