"""Thumbs and corrections as rows, how liked replies are held against disliked ones, and where all of them stand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import comparison_of, turn

from memory.schema import Correction, LabeledComparison, Message, Rating
from training.rated import RatedRow, all_matched, matched, paired, rated_rows, sides_of, written_rows
from training.views import Feedback, PreferenceRow, preference_view


def row(text, liked, *, prompt="Why?"):
    return RatedRow((Message("user", prompt),), text, liked, prompt, f"rating:{text}")


def feedback(turns, **judged):
    return Feedback(turns={one.id: one for one in turns}, **judged)


def test_a_thumb_is_a_row_unless_its_reply_cannot_be_used():
    turns = [
        turn("up", "c", "Hi?", "Yes."),
        turn("down", "c", "Hi?", "Put it in", finish="length"),
        turn("stopped", "c", "Hi?", "Pu", finish="cancelled"),
        turn("blank", "c", "Hi?", "  "),
    ]
    ratings = [Rating(one.id, 1 if one.id == "up" else -1, "r", 1.0) for one in turns]
    ratings.append(Rating("unknown", 1, "r", 1.0))
    found = rated_rows(feedback(turns, ratings=tuple(ratings)))
    assert [(one.completion, one.liked, one.finished, one.rater) for one in found] == [
        ("Yes.", True, True, "r"),
        ("Put it in", False, False, "r"),
    ]
    assert found[0].feedback_id == "rating:up"


def test_a_pair_marked_both_bad_is_two_dislikes_and_a_tie_is_none():
    first, second = turn("a", "c", "Hi?", "Yes."), turn("b", "c", "Hi?", "No.")
    comparison = comparison_of("q", first, second)
    for label, expected in (("both_bad", [False, False]), ("tie", []), ("A", [])):
        labeled = LabeledComparison(comparison, label, "r", 1.0, 1.0)
        found = rated_rows(feedback([first, second], comparisons=(labeled,)))
        assert [one.liked for one in found] == expected


def test_a_correction_is_a_reply_that_a_person_wrote():
    turns = [turn("a", "c", "Hi?", "Yes."), turn("failed", "c", "Hi?", "Y", finish="error")]
    corrections = (
        Correction("a", "No.", "r", 1.0),
        Correction("failed", "No!", "r", 1.0),
        Correction("a", " ", "s", 1),
    )
    found = written_rows(feedback(turns, corrections=corrections))
    assert [(one.completion, one.liked, one.written, one.feedback_id) for one in found] == [
        ("No.", True, True, "correction:a"),
        ("No!", True, True, "correction:failed"),
    ], "a reply that failed may be corrected like any other"


def test_a_pair_is_one_contrast_and_two_rated_replies():
    pair = PreferenceRow(
        (Message("user", "Hi?"),), "Yes?", "No.", "c", "comparison:1", rejected_finished=False
    )
    (contrast,) = paired([pair])
    assert (contrast.better, contrast.worse) == sides_of([pair])
    assert (contrast.better.completion, contrast.better.liked) == ("Yes?", True)
    assert (contrast.worse.completion, contrast.worse.liked, contrast.worse.finished) == ("No.", False, False)


def test_replies_to_the_same_prompt_are_matched_first():
    rows = [
        row("liked one", True, prompt="One?"),
        row("liked two", True, prompt="Two?"),
        row("bad two", False, prompt="Two?"),
        row("bad one", False, prompt="one? "),
    ]
    assert {(one.better.completion, one.worse.completion) for one in matched(rows)} == {
        ("liked one", "bad one"),
        ("liked two", "bad two"),
    }


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=24))
def test_each_of_the_rarer_kind_is_matched_once_and_each_of_the_commoner_at_most_once(drawn):
    rows = [row(f"{n}", liked, prompt=f"{prompt}?") for n, (liked, prompt) in enumerate(drawn)]
    few = min(sum(liked for liked, _ in drawn), sum(not liked for liked, _ in drawn))
    once = matched(rows)
    assert len(once) == few
    used = Counter(side.completion for contrast in once for side in (contrast.better, contrast.worse))
    assert set(used.values()) <= {1}
    assert all(contrast.better.liked and not contrast.worse.liked for contrast in once)
    every = all_matched(rows)
    assert every[:few] == once
    if few:
        assert {side.completion for one in every for side in (one.better, one.worse)} == {
            one.completion for one in rows
        }
    assert matched(rows[::-1]) == once, "the order in which thumbs came does not matter"


def thumbs(count, *, up=lambda number: number % 2 == 0):
    """So many conversations of one rated reply each."""
    turns = [turn(f"t{n}", f"c{n}", f"What about {n}?", f"Reply {n}.") for n in range(count)]
    ratings = tuple(Rating(f"t{n}", 1 if up(n) else -1, "r", 1.0) for n in range(count))
    return feedback(turns, ratings=ratings)


def test_thumbs_are_split_by_conversation_and_more_are_held_out_while_they_make_too_few_contrasts():
    view = preference_view(thumbs(40), share=0.01, least=4)
    assert len(view.contrasts) == 4
    assert not {one.conversation_id for one in view.rated} & {
        one.conversation_id for one in view.rated_heldout
    }
    assert len(view.rated) + len(view.rated_heldout) == 40
    assert len(view.train_prompts) + len(view.heldout_prompts) == 40
    assert view.judgements == 0, "thumbs are no pairs"


def test_thumbs_of_one_kind_make_no_contrast_however_many_are_held_out():
    view = preference_view(thumbs(30, up=lambda number: True), share=0.2, least=4)
    assert view.contrasts == ()
    assert 0 < len(view.rated_heldout) < 30


def test_what_people_wrote_is_learned_on_one_side_and_examined_as_a_pair_on_the_other():
    turns = [turn(f"t{n}", f"c{n}", f"What about {n}?", f"Reply {n}.") for n in range(30)]
    corrections = tuple(Correction(f"t{n}", f"Better {n}?", "r", 1.0) for n in range(30))
    view = preference_view(feedback(turns, corrections=corrections), share=0.2, least=4)
    assert {one.completion for one in view.written} == {one.chosen for one in view.train}
    assert len(view.contrasts) == len(view.heldout) == 30 - len(view.written)


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_a_ledger_of_pairs_alone_is_examined_by_its_pairs(share):
    first = [turn(f"a{n}", f"c{n}", f"What about {n}?", f"Yes {n}.") for n in range(20)]
    second = [turn(f"b{n}", f"c{n}", f"What about {n}?", f"No {n}.") for n in range(20)]
    labeled = tuple(
        LabeledComparison(comparison_of(f"q{n}", *sides), "A", "r", 1.0, 1.0)
        for n, sides in enumerate(zip(first, second, strict=True))
    )
    view = preference_view(feedback([*first, *second], comparisons=labeled), share=share)
    assert [one.better.completion for one in view.contrasts] == [one.chosen for one in view.heldout]
    assert view.rated == view.rated_heldout == view.written == ()
