"""Win rates are means over prompts, judged both ways round, with honest errors."""

from __future__ import annotations

import math

import pytest

from memory.schema import Message
from training.judge import Contest, wilson, win_rate


def prompt(text="Why?"):
    return (Message("user", text),)


def test_a_judge_that_favours_a_side_is_averaged_out():
    """One that always likes what it reads first, at 0.9: (0.9 + (1 - 0.9)) / 2 = 0.5."""
    estimate = win_rate(
        lambda question, first, second: 0.9, [Contest(prompt(str(n)), "a", "b") for n in range(5)]
    )
    assert (estimate.mean, estimate.error, estimate.clusters) == (pytest.approx(0.5), pytest.approx(0.0), 5)


def test_the_error_is_that_of_the_mean_over_prompts():
    """Prompts 1, 2, 3: (1, 1), (0, 0), (1, 0). Means 1, 0, 0.5; s = 0.5; error 0.5 / sqrt 3."""
    outcomes = {"w": 1.0, "l": 0.0}
    contests = [
        Contest(prompt(q), a, b)
        for q, a, b in [
            ("1", "w", "l"),
            ("1", "w", "l"),
            ("2", "l", "w"),
            ("2", "l", "w"),
            ("3", "w", "l"),
            ("3", "l", "w"),
        ]
    ]
    estimate = win_rate(lambda question, first, second: outcomes[first], contests)
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.error == pytest.approx(0.5 / math.sqrt(3))
    assert estimate.clusters == 3


def test_one_prompt_has_no_error_and_none_has_no_rate():
    assert math.isnan(win_rate(lambda *_: 0.9, [Contest(prompt(), "a", "b")]).error)
    assert math.isnan(win_rate(lambda *_: 0.9, []).mean)


def test_a_contest_swapped_twice_is_itself():
    contest = Contest(prompt(), "a", "b")
    assert contest.swap() == Contest(prompt(), "b", "a")
    assert contest.swap().swap() == contest


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 5, 0.0, 0.4345), (5, 5, 0.5655, 1.0)]
)
def test_wilson_interval(hits, trials, low, high):
    """By hand for 8 of 10, z = 1.96: centre (0.8 + 0.19208) / 1.38416 = 0.71674, half-width 0.22654."""
    assert wilson(hits, trials) == pytest.approx((low, high), abs=1e-3)


def test_wilson_of_nothing_is_not_a_number():
    assert all(math.isnan(end) for end in wilson(0, 0))
