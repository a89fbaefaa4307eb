"""A retraining may begin when there is enough to learn from and to examine by; else words say what is not."""

from __future__ import annotations

from judged import quick_settings

from memory.schema import Message
from training.trigger import explain_dropped, readiness
from training.views import PreferenceRow, PreferenceView

SETTINGS = quick_settings(min_comparisons=20, min_heldout_pairs=4, heldout_share=0.2)


def view(train, heldout, *, dropped=None, first_id=0):
    def rows(count, offset):
        return tuple(
            PreferenceRow((Message("user", str(n)),), "a", "b", f"talk-{n}", f"comparison:{n}")
            for n in range(first_id + offset, first_id + offset + count)
        )

    return PreferenceView(rows(train, 0), rows(heldout, train), dropped=dropped or {})


def test_enough_is_ready():
    ready = readiness(view(16, 4), SETTINGS)
    assert (ready.ready, ready.have, ready.need) == (True, 20, 0)
    assert ready.sentence == "Ready: 20 decided comparisons to learn from."


def test_too_few_says_how_many_are_missing():
    ready = readiness(view(13, 4), SETTINGS)
    assert (ready.ready, ready.have, ready.need) == (False, 17, 3)
    assert ready.sentence == "3 more decided comparisons needed: 17 of 20 so far."


def test_nothing_at_all():
    ready = readiness(view(0, 0), SETTINGS)
    assert (ready.ready, ready.have, ready.need) == (False, 0, 20)


def test_too_few_kept_aside_asks_for_new_conversations():
    """Two more must fall on the held-out side; at first one conversation in two does, so about four are needed."""
    ready = readiness(view(30, 2), SETTINGS)
    assert (ready.ready, ready.have, ready.need) == (False, 32, 4)
    assert ready.sentence.startswith("About 4 more comparisons needed, in new conversations: 2 of the 4")


def test_one_missing_is_said_in_the_singular_and_ties_are_explained():
    ready = readiness(view(15, 4, dropped={"tie": 2, "identical": 1}), SETTINGS)
    assert ready.sentence == (
        "1 more decided comparison needed: 19 of 20 so far. "
        "Not counted: 2 ties and 1 pair of identical replies."
    )


def test_pairs_of_one_ranking_count_as_one_judgement():
    rows = tuple(
        PreferenceRow((Message("user", "Why?"),), "a", str(n), "talk", "ranking:x>y>z") for n in range(30)
    )
    assert readiness(PreferenceView(rows, ()), SETTINGS).have == 1


def test_every_reason_has_words():
    reasons = [
        "tie",
        "both_bad",
        "empty",
        "identical",
        "unfinished",
        "different_prompts",
        "unknown_turn",
        "too_long",
    ]
    assert explain_dropped(dict.fromkeys(reasons, 0)) == ""
    assert explain_dropped(dict.fromkeys(reasons, 2)).count("2 ") == len(reasons)
