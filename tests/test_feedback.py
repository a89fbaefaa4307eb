"""Thumbs and corrections: what stands in the ledger, what is shown, whose it is."""

from __future__ import annotations

import pytest
from desk import ANN, BOB, desk_at

from memory.schema import Correction, LabeledComparison, Rating
from studio.chat import ChatRefused
from studio.feedback import FeedbackService


@pytest.fixture
def desk(tmp_path):
    with desk_at(tmp_path) as made:
        made.feedback = FeedbackService(made.ledger, made.conversations, max_chars=500, clock=made.clock)
        yield made


def test_a_thumb_can_be_given_changed_and_taken_back(desk):
    turn = desk.say(desk.begin(), "hello").first.turn_id
    desk.feedback.rate(turn, 1, "r1", owner=ANN)
    assert desk.ledger.rating_of(turn, "r1").value == 1
    desk.clock.now += 1
    rating = desk.feedback.rate(turn, -1, "r1", owner=ANN, reasons=["too long"], comment="It rambles.\x00")
    assert rating == Rating(turn, -1, "r1", desk.clock.now, ("too long",), "It rambles.")
    assert desk.ledger.rating_of(turn, "r1") == rating
    assert desk.feedback.rate(turn, None, "r1", owner=ANN) is None
    assert desk.ledger.rating_of(turn, "r1") is None and desk.ledger.ratings() == []
    desk.feedback.rate(turn, None, "r1", owner=ANN)


def test_a_correction_is_preferred_shown_from_then_on_and_seen_by_the_policy(desk):
    where = desk.begin()
    reply = desk.say(where, "hello")
    turn = reply.first.turn_id
    node = desk.feedback.correct(turn, "Hello to you.", "r1", owner=ANN)
    assert node.turn_id is None and desk.shown(where) == [("user", "hello"), ("assistant", "Hello to you.")]
    assert [n.id for n in desk.chat.owned.siblings(ANN, node.id)] == [reply.node_id, node.id]
    assert desk.ledger.corrections() == [Correction(turn, "Hello to you.", "r1", desk.clock.now)]
    assert desk.say(where, "more").prompt[1].content == "Hello to you."


def test_a_correction_can_be_corrected_again_and_the_last_one_counts(desk):
    where = desk.begin()
    turn = desk.say(where, "hello").first.turn_id
    first = desk.feedback.correct(turn, "Helo.", "r1", owner=ANN)
    assert desk.feedback.turn_of(first.id, "r1", owner=ANN) == turn
    assert desk.feedback.turn_of(first.id, "r2", owner=ANN) is None
    desk.feedback.correct(turn, "Hello.", "r1", owner=ANN)
    assert [correction.text for correction in desk.ledger.corrections()] == ["Hello."]
    again = desk.feedback.correct(turn, "Helo.", "r1", owner=ANN)
    assert again.id == first.id and desk.shown(where)[-1] == ("assistant", "Helo.")
    assert desk.feedback.turn_of(again.id, "r1", owner=ANN) == turn


@pytest.mark.parametrize("text", ["", "  ", "x" * 501, "a\udc00"])
def test_a_bad_correction_is_refused_and_changes_nothing(desk, text):
    where = desk.begin()
    exchange = desk.say(where, "hello")
    before = desk.shown(where)
    with pytest.raises(ChatRefused):
        desk.feedback.correct(exchange.first.turn_id, text, "r1", owner=ANN)
    with pytest.raises(ChatRefused, match="nothing to correct"):
        desk.feedback.correct(exchange.first.turn_id, exchange.first.stream.text + "\n", "r1", owner=ANN)
    assert desk.shown(where) == before and desk.ledger.corrections() == []


def test_what_was_given_is_found_again(tmp_path):
    with desk_at(tmp_path, compare_every=2) as desk:
        desk.feedback = FeedbackService(desk.ledger, desk.conversations, clock=desk.clock)
        where = desk.begin()
        turn = desk.say(where, "hello").first.turn_id
        desk.feedback.rate(turn, 1, ANN, owner=ANN)
        desk.chat.vote(desk.say(where, "more").id, "tie", ANN, owner=ANN)
    with desk_at(tmp_path) as desk:
        given = FeedbackService(desk.ledger, desk.conversations).given(where, ANN, owner=ANN)
        assert {type(judgement) for judgement in given} == {Rating, LabeledComparison}


def test_strangers_and_unknown_turns_are_refused_in_the_same_words(desk):
    where = desk.begin()
    exchange = desk.say(where, "hello")
    for call in (
        lambda turn, owner, node, conversation: desk.feedback.rate(turn, 1, "r", owner=owner),
        lambda turn, owner, node, conversation: desk.feedback.correct(turn, "other", "r", owner=owner),
        lambda turn, owner, node, conversation: desk.feedback.turn_of(node, "r", owner=owner),
        lambda turn, owner, node, conversation: desk.feedback.given(conversation, "r", owner=owner),
    ):
        messages = set()
        for arguments in (
            (exchange.first.turn_id, BOB, exchange.node_id, where),
            ("none", ANN, "none", "none"),
        ):
            with pytest.raises(ChatRefused) as refused:
                call(*arguments)
            messages.add(str(refused.value))
        assert len(messages) == 1
    assert desk.judgements() == 0
