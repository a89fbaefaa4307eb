"""The judge learns a taste from few pairs, and win rates are means over prompts with honest errors."""

from __future__ import annotations

import math
import random

import pytest
import torch

from memory.schema import Message
from training.judge import Contest, agreement, fit_judge, surface, wilson, win_rate
from training.views import PreferenceRow

WORDS = [
    "tea",
    "egg",
    "water",
    "wait",
    "minute",
    "cold",
    "train",
    "moon",
    "rock",
    "book",
    "read",
    "the",
    "and",
]


def prompt(text="Why?"):
    return (Message("user", text),)


def no_features(pairs):
    return torch.zeros(len(pairs), 8)


def sentence(draw, *, words=8):
    return " ".join(draw.choices(WORDS, k=draw.randint(3, words))) + draw.choice([".", "!", "?"])


def rows(taste, *, count, seed, noise=0.0):
    """Pairs whose chosen reply has the higher taste, but for a share of `noise`."""
    draw, made = random.Random(seed), []
    while len(made) < count:
        first, second = sentence(draw), sentence(draw)
        if taste(first) == taste(second):
            continue
        best, worst = sorted([first, second], key=taste, reverse=draw.random() >= noise)
        made.append(
            PreferenceRow(prompt(f"Question {len(made)}?"), best, worst, str(len(made)), str(len(made)))
        )
    return made


TASTES = {
    "question": lambda reply: reply.endswith("?"),
    "short": lambda reply: -len(reply),
    "no exclamation": lambda reply: "!" not in reply,
}


@pytest.mark.parametrize("name", TASTES)
def test_it_agrees_with_a_rater_on_pairs_it_never_saw(name):
    judge = fit_judge(rows(TASTES[name], count=40, seed=1), no_features)
    agreed = agreement(judge, rows(TASTES[name], count=200, seed=2))
    assert sum(agreed) / len(agreed) > 0.9


def test_noisy_votes_make_it_less_sure_but_not_wrong():
    clean = fit_judge(rows(TASTES["question"], count=60, seed=1), no_features)
    noisy = fit_judge(rows(TASTES["question"], count=60, seed=1, noise=0.25), no_features)
    pair = (prompt(), "tea and water?", "tea and water.")
    assert clean(*pair) > noisy(*pair) > 0.5


def test_it_uses_what_the_base_sees_where_the_surface_says_nothing():
    """Replies that look alike: only the base's first feature tells the good ones from the others."""

    def embed(pairs):
        return torch.tensor([[float("tea" in reply), *[0.1] * 7] for _, reply in pairs])

    pairs = [
        PreferenceRow(prompt(str(n)), f"hot tea {n:03d}", f"hot egg {n:03d}", str(n), str(n))
        for n in range(20)
    ]
    judge = fit_judge(pairs, embed)
    assert judge(prompt(), "old tea 555", "old egg 555") > 0.9


def test_swapping_the_sides_swaps_the_probability():
    judge = fit_judge(rows(TASTES["short"], count=20, seed=3), no_features)
    straight, swapped = judge(prompt(), "tea.", "tea and water!"), judge(prompt(), "tea and water!", "tea.")
    assert straight + swapped == pytest.approx(1.0)
    assert judge(prompt(), "tea.", "tea.") == 0.5


def test_without_pairs_there_is_no_judge():
    with pytest.raises(ValueError, match="Collect comparisons first"):
        fit_judge([], no_features)


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


def test_the_surface_sees_lists_questions_and_tone():
    plain, lively = surface(prompt(), "Tea is hot."), surface(prompt(), "- Tea!\n- Why? 😀\n\nShall we?")
    assert len(plain) == len(lively)
    assert sum(a != b for a, b in zip(plain, lively, strict=True)) > 8
    assert all(map(math.isfinite, surface((), "")))
