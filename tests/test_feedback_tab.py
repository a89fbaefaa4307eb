"""The Feedback room: what it says, how it is looked through, and that a long ledger is never waited for."""

from __future__ import annotations

import re
import threading

import pytest
from furnished import furnish, judge

from memory.schema import Critique, Rating, Score
from studio import feedback_tab
from studio.feedback_browser import look
from studio.feedback_sums import FeedbackSums
from studio.prospects import Prospects

ME = "ann"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with furnish(tmp_path_factory.mktemp("feedback") / "data", compare_every=1) as built:
        judge(built, ME, times=3)
        judge(built, "bob", times=1)
        turn = built.ledger.comparisons()[0].comparison.turn_A
        now = built.database.clock()
        for said in (
            Rating(turn, -1, ME, now, ("too long",), "It <b>rambles</b>."),
            Score(turn, "clear", 2, ME, now),
            Critique(turn, "Not a word of rocks.", ME, now),
        ):
            built.ledger.record(said, guidelines="g-1")
        yield built


def test_the_room_says_what_there_is_and_what_becomes_of_it(studio):
    drawn = feedback_tab.render(studio, ME, studio.database.clock())
    assert "People have given 4 comparisons, 1 thumb, 1 mark and 1 critique." in drawn
    assert "6 judgements of these are yours." in drawn
    assert "What training will make of it" in drawn and re.search(r"\d pairs? to train on", drawn)
    assert "By rater: 2 people" in drawn and "<td>you</td>" in drawn
    assert "0 % of 1" in drawn


def test_looking_through_it(studio):
    everything = look(studio, ME, {})
    assert (everything["total"], everything["more"], len(everything["rows"])) == (7, False, 7)
    assert everything["versions"] == ["base"] and everything["signals"]["down"] == "Thumbs down"
    (thumb,) = look(studio, ME, {"signal": "down"})["rows"]
    assert (thumb["said"], thumb["tone"], thumb["mine"]) == ("thumb down", "bad", True)
    assert (thumb["note"], thumb["guidelines"]) == ("too long · It <b>rambles</b>.", "g-1")
    assert look(studio, ME, {"signal": "score"})["rows"][0]["said"] == "clear 2"
    assert look(studio, "bob", {"mine": True})["total"] == 1
    assert look(studio, ME, {"text": "ROCKS"})["rows"][0]["note"] == "Not a word of rocks."
    assert look(studio, ME, {"text": "rambles", "version": "v0009"})["total"] == 0
    today = everything["days"][0]
    assert look(studio, ME, {"day": today})["total"] == 7
    assert look(studio, ME, {"signal": "nonsense", "before": True, "day": 7})["total"] == 7


def test_a_long_ledger_is_counted_aside_while_the_last_count_is_told(studio):
    prospects = Prospects(studio.settings, studio.ledger, at_once=0, clock=lambda: 0.0)
    first = prospects.latest()
    assert (first.sequence, first.readiness.ready) == (0, False)
    assert "4 decided comparisons" in first.readiness.sentence
    for thread in threading.enumerate():
        if thread.name == "prospects":
            thread.join(10)
    counted = prospects.latest()
    assert counted.sequence == studio.ledger.last_sequence() and counted.readiness.have == 4
    assert counted == prospects.now()


def test_a_count_is_followed_by_a_rest_in_proportion(studio):
    times = iter(range(0, 100_000, 10))
    prospects = Prospects(studio.settings, studio.ledger, at_once=0, clock=lambda: float(next(times)))
    prospects.latest()
    for thread in threading.enumerate():
        if thread.name == "prospects":
            thread.join(10)
    known = prospects.latest()
    studio.ledger.record(Rating(studio.ledger.comparisons()[0].comparison.turn_B, 1, ME, 1.0))
    assert prospects.latest() is known, "it has just counted, so it rests"
    assert not any(thread.name == "prospects" for thread in threading.enumerate())


def test_the_sums_are_taken_anew_when_something_was_said_and_the_rest_is_over(studio):
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    sums = FeedbackSums(studio.ledger, studio.search, long=0, clock=clock)
    first = sums.latest()
    assert sums.latest() is first
    studio.ledger.record(Rating(studio.ledger.comparisons()[1].comparison.turn_B, 1, ME, 1.0))
    assert sums.latest() is first
    now[0] += 100
    assert sums.latest().counts.ratings_up == first.counts.ratings_up + 1
