"""The fitted judge learns a taste from few pairs, says nothing where there is none, and knows how sure it is."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import fmean

import pytest
import torch

from memory.schema import Message
from training.bradley_terry import fit_judge
from training.judge import wilson
from training.rated import RatedRow, paired
from training.views import PreferenceRow

WORDS = (
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
)


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
    agreed = judge.agreement(paired(rows(TASTES[name], count=200, seed=2)))
    assert sum(agreed) / len(agreed) > 0.9


def test_noisy_votes_make_it_less_sure_but_not_wrong():
    clean = fit_judge(rows(TASTES["question"], count=60, seed=1), no_features)
    noisy = fit_judge(rows(TASTES["question"], count=60, seed=1, noise=0.25), no_features)
    pair = (prompt(), "tea and water?", "tea and water.")
    assert clean(*pair) > noisy(*pair) > 0.5


def test_it_finds_the_word_that_people_like():
    judge = fit_judge(rows(lambda reply: "moon" in reply, count=40, seed=1), no_features)
    assert judge(prompt(), "the moon and tea.", "the rock and tea.") > 0.8
    assert abs(judge(prompt(), "the book and tea.", "the rock and tea.") - 0.5) < 0.2


def test_it_uses_what_the_base_sees_where_the_text_says_nothing():
    """Random numbers: only the base's first feature tells the good ones (even) from the others."""

    def embed(pairs):
        return torch.tensor([[float(int(reply) % 2 == 0), *[0.1] * 7] for _, reply in pairs])

    draw = random.Random(3)
    numbers = [(2 * draw.randint(100, 499), 2 * draw.randint(100, 499) + 1) for _ in range(30)]
    pairs = [
        PreferenceRow(prompt(str(n)), str(a), str(b), str(n), str(n)) for n, (a, b) in enumerate(numbers)
    ]
    judge = fit_judge(pairs, embed)
    assert judge(prompt(), "556", "557") > 0.75


def test_without_a_taste_it_is_hardly_ever_sure():
    """Five people who toss coins: of 100 new pairs each, few get a probability beyond 0.8 either way."""
    draw, sure = random.Random(5), 0
    for _ in range(5):
        pairs = [
            PreferenceRow(prompt(str(n)), sentence(draw), sentence(draw), str(n), str(n)) for n in range(40)
        ]
        judge = fit_judge(pairs, no_features)
        sure += sum(abs(judge(prompt(), sentence(draw), sentence(draw)) - 0.5) > 0.3 for _ in range(100))
    assert sure < 50
    told = fit_judge(rows(TASTES["question"], count=40, seed=1), no_features)
    assert sum(abs(told(prompt(), f"{word}?", f"{word}.") - 0.5) > 0.3 for word in WORDS) == len(WORDS)


def test_the_scores_are_log_odds_and_are_seen_once():
    calls = []

    def embed(pairs):
        calls.append(len(pairs))
        return no_features(pairs)

    judge = fit_judge(rows(TASTES["question"], count=20, seed=1), embed)
    better, worse = judge.scores([(prompt(), "tea?"), (prompt(), "tea.")])
    assert judge(prompt(), "tea?", "tea.") == pytest.approx(1 / (1 + math.exp(worse - better)))
    seen = sum(calls)
    judge.scores([(prompt(), "tea?")])
    assert sum(calls) == seen
    assert judge.scores([]) == []


def test_it_can_be_handed_another_way_to_see():
    judge = fit_judge(rows(TASTES["question"], count=20, seed=1), no_features)
    calls = []
    other = judge.seeing_through(lambda pairs: calls.append(pairs) or no_features(pairs))
    assert other(prompt(), "new tea?", "new tea.") == judge(prompt(), "new tea?", "new tea.")
    assert len(calls) == 1


def test_one_pair_is_not_enough_for_an_opinion():
    assert not fit_judge(rows(TASTES["question"], count=1, seed=1), no_features).has_opinion


def test_swapping_the_sides_swaps_the_probability():
    judge = fit_judge(rows(TASTES["short"], count=20, seed=3), no_features)
    straight, swapped = judge(prompt(), "tea.", "tea and water!"), judge(prompt(), "tea and water!", "tea.")
    assert straight + swapped == pytest.approx(1.0)
    assert judge(prompt(), "tea.", "tea.") == 0.5


def test_without_anything_preferred_there_is_no_opinion():
    liked = thumbs(TASTES["question"], count=9, seed=1, cut=-1)
    for judge in (fit_judge([], no_features), fit_judge([], no_features, rated=liked)):
        assert (judge.has_opinion, judge.left_out) == (False, ())
        assert judge(prompt(), "tea?", "tea.") == 0.5
        assert judge.scores([(prompt(), "tea?"), (prompt(), "tea.")]) == [0.0, 0.0]


def test_pairs_left_out_in_turn_are_foretold_where_there_is_a_taste():
    judge = fit_judge(rows(TASTES["question"], count=40, seed=1), no_features)
    assert len(judge.left_out) == 40
    assert sum(judge.left_out) >= 36


def test_votes_of_a_coin_seldom_look_like_a_taste():
    """Wilson's lower end lies above one half for a coin in one case of forty; a little more is left for the choice of
    the penalty."""
    coin = random.Random(3)

    def looks_like_one(seed):
        left_out = fit_judge(rows(lambda reply: coin.random(), count=30, seed=seed), no_features).left_out
        return wilson(sum(left_out), len(left_out))[0] > 0.5

    assert sum(looks_like_one(seed) for seed in range(60)) <= 5


def test_pairs_on_one_prompt_alone_foretell_nothing():
    same = [replace(row, prompt=prompt()) for row in rows(TASTES["question"], count=20, seed=1)]
    assert fit_judge(same, no_features).left_out == (False,) * 20


def thumbs(taste, *, count, seed, cut):
    """Replies to as many prompts, liked where the taste is above `cut`."""
    draw = random.Random(seed)
    made = [sentence(draw) for _ in range(count)]
    return [
        RatedRow(prompt(f"Question {n}?"), reply, taste(reply) > cut, str(n), f"rating:{n}")
        for n, reply in enumerate(made)
    ]


@pytest.mark.parametrize(("name", "cut"), [("question", 0.5), ("short", -25), ("no exclamation", 0.5)])
def test_thumbs_alone_teach_it_a_taste_and_say_how_sure_it_is(name, cut):
    rated = thumbs(TASTES[name], count=120, seed=1, cut=cut)
    judge = fit_judge([], no_features, rated=rated)
    assert fmean(judge.agreement(paired(rows(TASTES[name], count=200, seed=2)))) > 0.85
    likes = sum(row.liked for row in rated)
    assert 0.8 * min(likes, 120 - likes) <= len(judge.left_out) <= min(likes, 120 - likes)
    assert fmean(judge.left_out) > 0.8


def test_thumbs_handed_out_by_chance_are_foretold_as_a_coin_would():
    """Eight in ten point up; each reply of the rarer kind counts once, so nothing is gained by betting on likes."""
    outcomes = []
    for seed in range(12):
        draw = random.Random(seed)
        rated = [replace(row, liked=draw.random() < 0.8) for row in thumbs(len, count=60, seed=seed, cut=0)]
        outcomes += fit_judge([], no_features, rated=rated).left_out
    low, high = wilson(sum(outcomes), len(outcomes))
    assert low < 0.5 < high


def test_pairs_and_thumbs_are_learned_from_together():
    pairs = rows(TASTES["short"], count=4, seed=1, noise=0.5)
    alone = fit_judge(pairs, no_features)
    both = fit_judge(pairs, no_features, rated=thumbs(TASTES["short"], count=80, seed=3, cut=-25))
    asked = paired(rows(TASTES["short"], count=200, seed=2))
    assert sum(both.agreement(asked)) > sum(alone.agreement(asked))
    assert len(both.left_out) > len(alone.left_out) == 4
