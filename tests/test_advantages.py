"""Rewards a token, generalized advantages and whole replies against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import tensor

from training.advantages import generalized_advantages, sequence_advantages, token_rewards

MASK = tensor([[True, True, True], [True, True, False]])
REWARDS = tensor([[0.0, 0.0, 1.0], [0.5, 2.0, 0.0]])
VALUES = tensor([[0.5, 0.6, 0.8], [1.0, 1.5, 9.0]])


def test_the_score_comes_at_the_last_token_and_the_divergence_costs_at_each():
    """KL 0.1, 0.2, 0.3 at coefficient 2, score 5 on the last of two tokens: -0.2, -0.4 + 5 and nothing after."""
    kl = tensor([[0.1, 0.2, 0.3]])
    found = token_rewards(tensor([5.0]), kl, tensor([[True, True, False]]), coefficient=2.0)
    assert found.tolist()[0] == pytest.approx([-0.2, 4.6, 0.0])
    with pytest.raises(ValueError, match="reply is empty"):
        token_rewards(tensor([5.0]), kl, tensor([[False, False, False]]), coefficient=2.0)


def test_generalized_advantages_of_two_replies():
    """discount 0.9, decay 0.5, so errors fade by 0.45 a token.

    First reply, rewards 0 0 1, values .5 .6 .8: delta_2 = 1 - .8 = .2; delta_1 = .9 * .8 - .6 = .12;
    delta_0 = .9 * .6 - .5 = .04. A_2 = .2, A_1 = .12 + .45 * .2 = .21, A_0 = .04 + .45 * .21 = .1345.
    Second, two tokens, rewards .5 2, values 1 1.5, whatever is predicted behind its end: delta_1 = 2 - 1.5 = .5,
    delta_0 = .5 + .9 * 1.5 - 1 = .85; A_0 = .85 + .45 * .5 = 1.075. Returns are A + V.
    """
    advantages, returns = generalized_advantages(REWARDS, VALUES, MASK, discount=0.9, decay=0.5)
    assert advantages[0].tolist() == pytest.approx([0.1345, 0.21, 0.2])
    assert advantages[1].tolist() == pytest.approx([1.075, 0.5, 0.0])
    assert returns[0].tolist() == pytest.approx([0.6345, 0.81, 1.0])
    assert returns[1].tolist() == pytest.approx([2.075, 2.0, 0.0])


def test_without_discount_and_decay_returns_are_what_was_still_to_come():
    """Decay 1: returns are sums of rewards to the end, whatever the values: 1, 1, 1 and 2.5, 2."""
    advantages, returns = generalized_advantages(REWARDS, VALUES, MASK, discount=1.0, decay=1.0)
    assert returns[0].tolist() == pytest.approx([1, 1, 1])
    assert returns[1].tolist() == pytest.approx([2.5, 2.0, 0.0])
    assert torch.allclose(advantages[MASK], (returns - VALUES)[MASK])


def test_a_reply_as_one_action():
    """All it earned, 1 and 2.5, minus the value of its prompt, 0.5 and 1."""
    advantages, returns = sequence_advantages(REWARDS, VALUES, MASK)
    assert returns.tolist() == [[1.0], [2.5]]
    assert advantages.tolist() == [[0.5], [1.5]]
