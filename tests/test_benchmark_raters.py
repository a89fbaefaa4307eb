"""The simulated raters vote by their taste, and a rater from a file is found or refused with a reason."""

from __future__ import annotations

import math

import pytest

from benchmarks.loop import mean_and_error, normalised_gain
from benchmarks.raters import RATERS, Rater, find_rater
from benchmarks.simulation import scripts
from training.mini.heldout import training_prompts

LIKED = {
    "question": "Tea is hot. And coffee?",
    "no_question": "Tea is hot.",
    "short": "Tea is hot.",
    "long": "word " * 40,
    "no_exclamation": "Tea is hot.",
    "exclamation": "Tea is hot!",
    "lists": "Here:\n- tea\n- milk",
    "polite": "Of course. Tea is hot.",
    "no_emoji": "Tea is hot.",
    "emoji": "Tea is hot 🙂",
    "reason": "It is hot because it was boiled.",
    "calm_question": "Tea is hot. And coffee?",
}
DISLIKED = {
    "question": "Really? Tea is hot.",
    "no_question": "Is it? Tea is hot.",
    "short": "word " * 30,
    "long": "Tea is hot.",
    "no_exclamation": "Tea is hot! Very!",
    "exclamation": "Tea is hot.",
    "lists": "Tea - with milk",
    "polite": "Tea is hot.",
    "no_emoji": "Tea is hot 🙂",
    "emoji": "Tea is hot.",
    "reason": "It is hot.",
    "calm_question": "Tea is hot! And coffee?",
}


@pytest.mark.parametrize("name", LIKED)
def test_each_taste_likes_what_it_says(name):
    rater = RATERS[name]
    good, bad = LIKED[name], DISLIKED[name]
    assert rater.satisfied("Tea?", good)
    assert not rater.satisfied("Tea?", bad)
    assert (rater.vote("Tea?", good, bad), rater.vote("Tea?", bad, good)) == ("A", "B")
    assert rater.vote("Tea?", good, good) == "tie"


def test_every_built_in_is_tried_here():
    assert set(RATERS) == set(LIKED) | {"coin", "noisy_question", "noisy_short"}


def test_a_noisy_rater_errs_at_its_rate_and_always_in_the_same_places():
    noisy, clean = RATERS["noisy_question"], RATERS["question"]
    pairs = [(f"Question {n}", f"Tea {n}?", f"Tea {n}.") for n in range(500)]
    wrong = sum(noisy.vote(*pair) != clean.vote(*pair) for pair in pairs)
    assert 0.14 < wrong / 500 < 0.26
    assert [noisy.vote(*pair) for pair in pairs] == [noisy.vote(*pair) for pair in pairs]
    assert noisy.vote("Q", "Tea.", "Milk.") == "tie", "a mistake needs a difference"


def test_the_coin_has_no_taste():
    votes = [RATERS["coin"].vote(f"Question {n}", "Tea.", f"Milk {n}.") for n in range(400)]
    assert 0.4 < votes.count("A") / 400 < 0.6


def test_a_rater_from_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def likes_tea(prompt, reply):\n    return 0.9 if 'tea' in reply else 0.1\n")
    rater = find_rater(f"{file}:likes_tea")
    assert rater.satisfied("Why?", "tea")
    assert rater.vote("Why?", "milk", "tea") == "B"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody", "expected one of question"),
        ("missing.py:taste", "which is not there"),
        ("{file}:other", "has no function other"),
    ],
)
def test_a_rater_that_cannot_be_had_is_refused_with_the_reason(name, words, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def taste(prompt, reply):\n    return 1.0\n")
    with pytest.raises(ValueError, match=words):
        find_rater(name.format(file=file))


def test_a_score_that_is_no_number_is_refused():
    rater = Rater("broken", lambda prompt, reply: math.nan)
    with pytest.raises(ValueError, match="Rater broken scored"):
        rater.vote("Q", "a", "b")


def test_normalised_gain_and_its_error():
    """From 0.6 to 0.9 is three quarters of what was to be gained; 1, 2, 3 have s = 1 and error 1 / sqrt 3."""
    assert normalised_gain(0.6, 0.9) == pytest.approx(0.75)
    assert normalised_gain(0.6, 0.6) == 0.0
    assert math.isnan(normalised_gain(1.0, 1.0))
    assert mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / math.sqrt(3)))
    assert math.isnan(mean_and_error([1.0])[1])


def test_scripts_hold_exactly_the_messages_asked_for():
    plans = scripts(25, seed=4)
    assert sum(len(said) for _, said in plans) == 25
    assert plans == scripts(25, seed=4)
    assert plans != scripts(25, seed=5)
    spoken = {message.content for dialogue in training_prompts(25, 4) for message in dialogue}
    assert all(text in spoken for _, said in plans for text in said)
