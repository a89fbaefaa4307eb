"""The test that may be looked at after every vote: worked by hand, exact under the hypothesis, and simulated."""

from __future__ import annotations

import random
from math import comb

import pytest

from training.sequential import evidence_against


def test_values_worked_by_hand():
    """The alternatives 0.10, 0.12, ..., 0.48 have the mean 0.29: one vote against is worth 2 * 0.71 = 1.42, one for
    it 2 * 0.29 = 0.58. Their squares have the mean 0.29^2 + 0.02^2 * (20^2 - 1) / 12 = 0.0841 + 0.0133 = 0.0974; so two
    votes against are worth 4 * mean (1 - q)^2 = 4 * (1 - 0.58 + 0.0974) = 2.0696."""
    assert evidence_against(0, 0) == pytest.approx(1.0)
    assert evidence_against(0, 1) == pytest.approx(1.42)
    assert evidence_against(1, 0) == pytest.approx(0.58)
    assert evidence_against(0, 2) == pytest.approx(2.0696)
    with pytest.raises(ValueError, match="-1 for"):
        evidence_against(-1, 0)


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9])
def test_its_expectation_never_rises_above_one_where_people_like_it_as_well(p):
    means = [
        sum(comb(n, k) * p**k * (1 - p) ** (n - k) * evidence_against(k, n - k) for k in range(n + 1))
        for n in (1, 5, 20, 60)
    ]
    assert all(mean <= 1 + 1e-9 for mean in means)
    if p == 0.5:
        assert means == pytest.approx([1.0] * 4)
    else:
        assert means == sorted(means, reverse=True) and means[-1] < 0.1


def test_looked_at_after_every_vote_it_is_wrong_in_one_of_twenty_cases_at_most():
    draw = random.Random(5)

    def ever(p: float, votes: int) -> bool:
        chosen = 0
        for n in range(1, votes + 1):
            chosen += draw.random() < p
            if evidence_against(chosen, n - chosen) >= 20:
                return True
        return False

    assert sum(ever(0.5, 150) for _ in range(300)) <= 0.05 * 300
    assert sum(ever(0.3, 150) for _ in range(100)) >= 95


def test_thousands_of_votes_do_not_overflow():
    assert evidence_against(0, 5_000) > 1e300 and evidence_against(5_000, 0) < 1e-30
