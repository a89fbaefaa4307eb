"""From judgements to rows: which pairs are made, which are not and why, and on which side they stand."""

from __future__ import annotations

import pytest
from judged import comparison_of, fill_ledger, turn

from memory.database import open_database
from memory.ledger import Ledger
from memory.schema import Correction, LabeledComparison, Message, Ranking, Rating
from training.split import place, prompt_key, split
from training.views import (
    Feedback,
    PreferenceRow,
    preference_rows,
    preference_view,
    read_feedback,
    sft_rows,
    unpaired_rows,
)


def judged(label, first, second, *, number="c"):
    return LabeledComparison(
        comparison_of(number, first, second), label, "rater", seconds=1.0, created_at=1.0
    )


def feedback(*labeled, turns=(), **others):
    return Feedback(tuple(labeled), turns={made.id: made for made in turns}, **others)


def row(conversation, prompt="Why?"):
    return PreferenceRow(
        (Message("user", prompt),), "good", "bad", conversation, f"comparison:{conversation}"
    )


LONG = turn("long", "talk", "Why?", "Because of the long")
SHORT = turn("short", "talk", "Why?", "Because.")


def test_a_vote_makes_a_pair_whichever_side_won():
    for label, sides in (("A", (LONG, SHORT)), ("B", (SHORT, LONG))):
        rows, dropped = preference_rows(feedback(judged(label, *sides), turns=[LONG, SHORT]))
        assert [(made.chosen, made.rejected) for made in rows] == [(LONG.completion, SHORT.completion)]
        assert (rows[0].feedback_id, rows[0].conversation_id) == ("comparison:c", "talk")
        assert not dropped


def test_a_row_has_trls_columns():
    assert row("talk").to_trl() == {
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": [{"role": "assistant", "content": "bad"}],
    }


def test_what_makes_no_pair_is_counted_with_its_reason():
    stopped = turn("stopped", "talk", "Why?", "Beca", finish="cancelled")
    broken = turn("broken", "talk", "Why?", "Be", finish="error")
    same = turn("same", "talk", "Why?", "Because. ")
    blank = turn("blank", "talk", "Why?", "  ")
    elsewhere = turn("elsewhere", "talk", "What?", "That.")
    turns = [LONG, SHORT, stopped, broken, same, blank, elsewhere]
    rows, dropped = preference_rows(
        feedback(
            judged("tie", LONG, SHORT),
            judged("both_bad", LONG, SHORT),
            judged("A", LONG, stopped),
            judged("B", broken, LONG),
            judged("A", SHORT, same),
            judged("A", SHORT, blank),
            judged("A", SHORT, elsewhere),
            turns=turns,
        )
    )
    assert rows == ()
    assert dropped == {
        "tie": 1,
        "both_bad": 1,
        "unfinished": 2,
        "identical": 1,
        "empty": 1,
        "different_prompts": 1,
    }


def test_a_reply_that_was_cut_off_is_no_example_of_ending_there():
    cut = turn("cut", "talk", "Why?", "Because of the", finish="length")
    (made,), _ = preference_rows(feedback(judged("A", cut, SHORT), turns=[cut, SHORT]))
    assert (made.chosen_finished, made.rejected_finished) == (False, True)


def test_a_ranking_makes_all_its_pairs_and_only_those_on_one_prompt():
    third = turn("third", "talk", "Why?", "No idea.")
    other = turn("other", "talk", "What?", "That.")
    turns = [LONG, SHORT, third, other]
    rankings = (Ranking(("long", "short", "third"), "rater", 1.0), Ranking(("long", "other"), "rater", 2.0))
    rows, dropped = preference_rows(feedback(rankings=rankings, turns=turns))
    pairs = [(made.chosen, made.rejected) for made in rows]
    assert pairs == [
        (LONG.completion, SHORT.completion),
        (LONG.completion, "No idea."),
        (SHORT.completion, "No idea."),
    ]
    assert {made.feedback_id for made in rows} == {"ranking:long>short>third"}
    assert dropped == {"different_prompts": 1}


def test_a_correction_prefers_the_edit_to_the_original():
    edit = Correction("short", "Because it rains.", "rater", 1.0)
    missing = Correction("nowhere", "Text", "rater", 1.0)
    rows, dropped = preference_rows(feedback(corrections=(edit, missing), turns=[SHORT]))
    assert [(made.chosen, made.rejected) for made in rows] == [("Because it rains.", "Because.")]
    assert rows[0].feedback_id == "correction:short"
    assert dropped == {"unknown_turn": 1}
    assert sft_rows([edit, missing], {"short": SHORT}) == (
        {
            "prompt": [{"role": "user", "content": "Why?"}],
            "completion": [{"role": "assistant", "content": "Because it rains."}],
        },
    )


def test_thumbs_are_unpaired_rows():
    stopped = turn("stopped", "talk", "Why?", "Be", finish="cancelled")
    turns = {made.id: made for made in (LONG, SHORT, stopped)}
    ratings = [Rating("long", 1, "r", 1.0), Rating("short", -1, "r", 1.0), Rating("stopped", -1, "r", 1.0)]
    labels = {made["completion"][0]["content"]: made["label"] for made in unpaired_rows(ratings, turns)}
    assert labels == {LONG.completion: True, SHORT.completion: False}


def test_a_conversation_keeps_its_side_as_the_ledger_grows():
    few = [row(f"talk-{number}", f"Question {number}?") for number in range(40)]
    many = few + [row(f"talk-{number}", f"Question {number}?") for number in range(40, 400)]
    heldout_before = {made.conversation_id for made in split(few, share=0.2)[1]}
    train, heldout = split(many, share=0.2)
    after = {made.conversation_id for made in heldout}
    assert after & {made.conversation_id for made in few} == heldout_before
    assert not after & {made.conversation_id for made in train}
    assert 0.13 < len(heldout) / len(many) < 0.27


def test_little_data_holds_out_more_and_never_takes_back_what_was_trained_on():
    """Growing one conversation at a time, with 4 pairs wanted and a share of 0.1: nothing moves into held-out."""
    trained: set[str] = set()
    shares = []
    for count in range(8, 160, 3):
        turns = [
            turn(f"{n}{side}", str(n), f"Question {n}?", f"Reply {side}")
            for n in range(count)
            for side in "ab"
        ]
        pairs = [judged("A", *turns[2 * n : 2 * n + 2], number=str(n)) for n in range(count)]
        view = preference_view(feedback(*pairs, turns=turns), share=0.1, least=4)
        held = {made.conversation_id for made in view.heldout}
        assert not held & trained
        trained |= {made.conversation_id for made in view.train}
        shares.append(len(held) / count)
        assert len(held) >= 4 or count < 12
        assert len(view.heldout_prompts) == len(held)
    assert shares[0] > 0.3
    assert shares[-1] < 0.2


def test_one_conversation_cannot_be_split():
    assert len(split([row("talk", f"Question {n}?") for n in range(9)], share=0.999999)[0]) in (0, 9)
    turns = [turn(f"{n}{side}", "talk", f"Question {n}?", f"Reply {side}") for n in range(9) for side in "ab"]
    pairs = [judged("A", *turns[2 * n : 2 * n + 2], number=str(n)) for n in range(9)]
    view = preference_view(feedback(*pairs, turns=turns), share=0.1, least=4)
    assert {len(view.train), len(view.heldout)} == {0, 9}


def test_rows_of_one_conversation_stay_together():
    rows = [row(f"talk-{number % 10}", f"Question {number}?") for number in range(100)]
    train, heldout = split(rows, share=0.5)
    assert train
    assert heldout
    assert not {made.conversation_id for made in train} & {made.conversation_id for made in heldout}


def test_a_prompt_on_both_sides_is_only_trained_on():
    inside = next(name for name in map(str, range(99)) if place(name) >= 0.5)
    outside = next(name for name in map(str, range(99)) if place(name) < 0.5)
    shared = [row(inside, "Why  not?"), row(outside, "why not?")]
    assert split(shared, share=0.5) == (tuple(shared), ())
    alone = [row(inside, "Why not?"), row(outside, "Why so?")]
    assert split(alone, share=0.5) == ((alone[0],), (alone[1],))


def test_the_system_message_does_not_make_another_question():
    plain = (Message("user", "Why?"),)
    assert prompt_key((Message("system", "Be brief."), *plain)) == prompt_key(plain)
    assert prompt_key((*plain, Message("assistant", "So."), *plain)) != prompt_key(plain)


def test_prompts_of_either_side_count_ties_and_none_is_on_both():
    outside = [name for name in map(str, range(99)) if place(name) < 0.2][:3]
    inside = [name for name in map(str, range(99)) if place(name) >= 0.2][:2]
    named = zip(
        [*outside, *inside], ["Tied?", "Taught?", "Tied inside?", "taught?", "tied inside?"], strict=True
    )
    sides = [[turn(f"{name}{side}", name, prompt, side) for side in "ab"] for name, prompt in named]
    labels = ("tie", "A", "A", "A", "tie")
    view = preference_view(
        feedback(*(judged(label, *pair) for label, pair in zip(labels, sides, strict=True))), share=0.2
    )
    assert [prompt[-1].content for prompt in view.heldout_prompts] == ["Tied?"]
    assert [prompt[-1].content.casefold() for prompt in view.train_prompts] == ["taught?", "tied inside?"]
    assert (len(view.train), len(view.heldout)) == (3, 0), (
        "a prompt that only ties in training is known there too"
    )


def test_the_ledger_is_read_whole(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'ledger.db'}")
    fill_ledger(database, comparisons=30)
    ledger = Ledger(database)
    ledger.record(Correction("other-3", "A better one?", "rater", 9.0))
    ledger.record(Rating("liked-3", 1, "rater", 9.0))
    view = preference_view(read_feedback(ledger), share=0.2)
    assert view.judgements == 31
    assert len(view.train) + len(view.heldout) == 31
    assert all(made.chosen.endswith("?") for made in (*view.train, *view.heldout))
    assert len(view.heldout_prompts) == len({prompt_key(made.prompt) for made in view.heldout})
    database.close()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_split_is_about_the_share(share):
    held = sum(place(str(number)) < share for number in range(2000))
    assert abs(held / 2000 - share) < 0.03
