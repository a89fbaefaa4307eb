"""Which method is chosen for what people said, and why; and how much each method needs."""

from __future__ import annotations

import pytest
from judged import quick_settings

from memory.schema import Message
from training.auto import choose
from training.rated import RatedRow
from training.trigger import readiness
from training.views import PreferenceRow, PreferenceView

SETTINGS = quick_settings(min_comparisons=12, min_thumbs=24, min_demonstrations=8, min_heldout_pairs=4)


def pairs(count, kind="comparison", first=0):
    return tuple(
        PreferenceRow((Message("user", str(n)),), "a", "b", f"talk-{n}", f"{kind}:{n}")
        for n in range(first, first + count)
    )


def thumbs(up, down=0, *, written=False):
    kinds = [True] * up + [False] * down
    return tuple(
        RatedRow(
            (Message("user", f"r{n}"),),
            str(n),
            liked,
            f"r{n}",
            f"{'correction' if written else 'rating'}:{n}",
            written=written,
        )
        for n, liked in enumerate(kinds)
    )


def settings(method):
    return SETTINGS.model_copy(update={"method": method})


COMPARED = PreferenceView(pairs(20), pairs(4, first=20))
RATED = PreferenceView((), (), rated=thumbs(20, 12), rated_heldout=thumbs(4, 4))
CORRECTED = PreferenceView(
    pairs(10, "correction"), pairs(4, "correction", 10), written=thumbs(10, written=True)
)
LIKED = PreferenceView(
    pairs(2, "correction"),
    pairs(2, first=2),
    rated=thumbs(10),
    rated_heldout=thumbs(2, 2),
    written=thumbs(2, written=True),
)
ALL = PreferenceView(
    (*COMPARED.train, *CORRECTED.train),
    COMPARED.heldout,
    rated=thumbs(8, 4),
    written=thumbs(10, written=True),
)


@pytest.mark.parametrize(
    ("view", "method", "reason"),
    [
        (COMPARED, "dpo", "there are enough of them: 24 comparisons, 0 thumbs, 0 corrections"),
        (RATED, "kto", "most of what people said is thumbs: 0 comparisons, 40 thumbs, 0 corrections"),
        (
            CORRECTED,
            "dpo",
            "pairs and corrections, because there are enough of them: 0 comparisons, 0 thumbs, 14 cor",
        ),
        (LIKED, "sft", "because all else is too little: 2 comparisons, 14 thumbs, 2 corrections"),
        (ALL, "dpo", "24 comparisons, 12 thumbs, 10 corrections"),
        (PreferenceView(pairs(6), pairs(4, first=6), rated=thumbs(4, 4)), "kto", "pairs are too few for DPO"),
    ],
    ids=["pairs", "thumbs", "corrections", "likes", "everything", "a few of each"],
)
def test_the_method_follows_from_what_there_is_and_the_sentence_says_so(view, method, reason):
    choice = choose(view, settings("auto"))
    assert choice.method == method
    assert reason in choice.sentence
    assert method.upper() in choice.sentence
    assert readiness(view, settings("auto")).ready


def test_with_too_little_for_any_method_the_nearest_one_says_what_is_missing():
    view = PreferenceView(pairs(6), pairs(4, first=6))
    ready = readiness(view, settings("auto"))
    assert (ready.ready, ready.need) == (False, 2)
    assert ready.sentence == "2 more decided comparisons needed: 10 of 12 so far."
    with pytest.raises(ValueError, match="2 more decided comparisons needed"):
        choose(view, settings("auto"))


@pytest.mark.parametrize(
    ("view", "have", "need", "sentence"),
    [
        (RATED, 40, 0, "Ready: 40 thumbs to learn from."),
        (COMPARED, 48, 0, "Ready: 48 thumbs to learn from."),
        (
            PreferenceView((), (), rated=thumbs(9, 9)),
            18,
            16,
            "About 16 more thumbs needed (both up and down), in new conversations: 0 of the 4 that must be kept aside "
            "to examine the result by so far.",
        ),
        (
            PreferenceView((), (), rated=thumbs(5, 5), rated_heldout=thumbs(4, 4)),
            18,
            6,
            "6 more thumbs needed: 18 of 24 so far; a decided comparison counts as one up and one down.",
        ),
        (
            PreferenceView(pairs(0), pairs(4), rated=thumbs(30, 0)),
            38,
            2,
            "2 more thumbs down needed: 4 of 6 so far.",
        ),
    ],
    ids=["enough", "pairs alone", "none aside", "too few", "one-sided"],
)
def test_kto_needs_thumbs_of_both_kinds(view, have, need, sentence):
    ready = readiness(view, settings("kto"))
    assert (ready.have, ready.need, ready.sentence) == (have, need, sentence)


@pytest.mark.parametrize(
    ("view", "have", "sentence"),
    [
        (CORRECTED, 14, "Ready: 14 corrections or liked replies to learn from."),
        (RATED, 24, "Ready: 24 corrections or liked replies to learn from."),
        (COMPARED, 0, "8 more corrections or liked replies needed: 0 of 8 so far."),
        (
            PreferenceView((), (), rated=thumbs(30)),
            30,
            "About 8 more corrections or liked replies needed (and disliked ones), in new conversations: 0 of the 4 "
            "that must be kept aside to examine the result by so far.",
        ),
    ],
    ids=["corrections", "likes", "pairs", "nothing to examine by"],
)
def test_sft_needs_corrections_or_likes_and_something_to_examine_it_by(view, have, sentence):
    ready = readiness(view, settings("sft"))
    assert (ready.have, ready.sentence) == (have, sentence)


@pytest.mark.parametrize("method", ["ppo", "rloo", "grpo"])
def test_a_method_with_a_reward_model_is_examined_by_pairs(method):
    assert readiness(COMPARED, settings(method)).ready
    mixed = PreferenceView(pairs(20), (), rated=thumbs(9, 9), rated_heldout=thumbs(6, 6))
    assert "0 of the 4" in readiness(mixed, settings(method)).sentence
    assert readiness(mixed, settings("dpo")).ready
