"""What replies look like: each figure on texts small enough to count by hand."""

from __future__ import annotations

import pytest

from training.replies import (
    distinct_share,
    identical_share,
    is_garbled,
    on_topic,
    repeated_share,
    reply_figures,
)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("one two three four", 0.0),
        ("a b c a b c", 0.25),  # four 3-grams, one of them twice
        ("no no no no no", 2 / 3),  # three 3-grams, all the same
        ("Tea tea TEA tea", 0.5),
        ("two words", 0.0),
        ("", 0.0),
    ],
)
def test_repetition(text, share):
    assert repeated_share(text) == pytest.approx(share)


def test_the_same_reply_to_different_questions_is_collapse_and_to_the_same_question_is_not():
    assert identical_share(["Yes.", "yes. ", "No."], questions=["a", "b", "c"]) == pytest.approx(2 / 3)
    assert identical_share(["Yes.", "Yes."], questions=["a", "a"]) == 0.0


def test_distinct_bigrams():
    assert distinct_share(["a b a b", "c d"], n=2) == pytest.approx(3 / 4)
    assert distinct_share([".."], n=2) == 0.0


@pytest.mark.parametrize("text", ["..", "?!) (", "a �", "::: x :::"])
def test_garbled(text):
    assert is_garbled(text)


@pytest.mark.parametrize("text", ["It is 4.", "- tea\n- milk", "你好，世界", "Ça va ?", "", "Да!"])
def test_not_garbled(text):
    assert not is_garbled(text)


def test_figures_name_each_kind_of_degenerate_reply():
    figures = reply_figures(
        ["Fine, thanks.", "", "...", "cut off in the", "(((a)))"],
        questions=range(5),
        tokens=[4, 1, 2, 5, 4],
        ended=[True, True, True, False, True],
        logprobs=[[-1.0], [-2.0], [-2.0, -10.0], [-1.0], [-8.9, -1.1]],
    )
    assert (figures.empty, figures.punctuation, figures.truncated, figures.garbled) == (0.2, 0.2, 0.2, 0.4)
    assert (figures.degenerate, figures.mean_tokens, figures.fluency) == (0.8, 3.2, -3.0)
    assert figures.implausible == 0.2, "one reply of five holds a token below -9 nats"


def test_without_replies_nothing_is_claimed():
    figures = reply_figures([], questions=[], tokens=[], ended=[], logprobs=[])
    assert (figures.replies, figures.degenerate, figures.fluency) == (0, None, None)


QUESTIONS = ("tea", "snow", "tea", "sharks")
SERVED = (
    "Tea is a drink made from leaves. Would you like more?",
    "Snow is frozen water that falls from clouds. Would you like more?",
    "Of course. Tea tastes bitter when it stands too long.",
    "Sharks are fish with rough skin. Would you like more?",
)


def test_replies_keep_to_the_topic_by_the_words_that_only_its_replies_have():
    short = ("Bitter leaves.", "It is frozen!", "A drink?", "Fish with skin.")
    assert on_topic(short, SERVED, questions=QUESTIONS) == [True] * 4
    assert on_topic(short[::-1], SERVED, questions=QUESTIONS) == [False] * 4


@pytest.mark.parametrize("hollow", ["", "..", "Would you like more?", "Wonderful!"])
def test_a_reply_that_suits_every_question_keeps_to_none(hollow):
    assert on_topic((hollow,) * 4, SERVED, questions=QUESTIONS) == [False] * 4


def test_without_a_reply_nothing_is_on_topic():
    assert on_topic((), (), questions=()) == []
