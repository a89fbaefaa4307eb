"""A promotion that people vote down goes back by itself: once, for the votes since then, not at one person's word."""

from __future__ import annotations

import pytest
from desk import desk_at

from memory.schema import Comparison, LabeledComparison, Message
from studio.watch import Watch
from training.registry import AdapterRefused

PROMPT = (Message("user", "Hello?"),)


@pytest.fixture
def desk(tmp_path):
    with desk_at(tmp_path) as opened:
        for _ in range(2):
            opened.promote(opened.publish())
            opened.clock.now += 10
            opened.serving.check()
        assert (opened.serving.current.version, opened.serving.previous.version) == ("v0002", "v0001")
        yield opened


def watch(desk, *, odds=20.0, votes_each=10):
    return Watch(desk.serving, desk.runs, desk.database, odds=odds, votes_each=votes_each)


def vote(desk, chosen, *, rater, label=None, over=("v0001", "v0002")):
    """One vote of `rater` for the version `chosen` in a pair of `over`; its sides alternate."""
    number = desk.ledger.counts().comparisons_decided + desk.ledger.counts().ties
    sides = over if number % 2 else over[::-1]
    where = desk.begin()
    turns = [desk.say(where, f"{number} {side}").first.turn_id for side in "AB"]
    asked = Comparison(
        f"c{number}", where, PROMPT, *turns, "Yes.", "No.", *sides, "A", created_at=desk.clock()
    )
    desk.ledger.record_comparison(asked)
    letter = label or ("A" if sides[0] == chosen else "B")
    desk.ledger.record(LabeledComparison(asked, letter, rater, 1.0, desk.clock()))


def test_a_version_that_people_vote_down_goes_back_and_the_next_watch_begins_anew(desk):
    looking = watch(desk)
    assert not looking.look()
    for number in range(6):
        vote(desk, "v0001", rater=f"person {number}")
    found = looking.standing()
    assert (found.version, found.before, found.chosen, found.passed_over) == ("v0002", "v0001", 0, 6)
    assert 5 < found.evidence < 20 and not looking.look()
    for number in range(6, 10):
        vote(desk, "v0001", rater=f"person {number}")
    assert looking.look() and desk.serving.current.version == "v0001"
    last = desk.runs.served()
    assert (last.version, last.actor) == ("v0001", "watch")
    assert last.reason == "People preferred v0001 to v0002, 10 votes to 0."
    found = looking.standing()
    assert (found.version, found.before, found.passed_over) == ("v0001", "base", 0) and not looking.look()


def test_votes_for_it_ties_other_pairs_and_older_votes_do_not_count_against_it(desk):
    looking = watch(desk)
    for number in range(4):
        vote(desk, "v0001", rater=f"person {number}")
    vote(desk, "v0002", rater="friend")
    vote(desk, "", rater="undecided", label="tie")
    vote(desk, "base", rater="historian", over=("base", "v0001"))
    found = looking.standing()
    assert (found.chosen, found.passed_over) == (1, 4)
    desk.clock.now += 10
    desk.promote("v0001")
    desk.promote("v0002")
    desk.serving.check()
    assert (looking.standing().chosen, looking.standing().passed_over) == (0, 0)


def test_one_person_cannot_take_a_version_down_alone(desk):
    for _ in range(30):
        vote(desk, "v0001", rater="grudge")
    assert watch(desk, votes_each=3).standing().passed_over == 3
    assert not watch(desk, votes_each=3).look() and watch(desk, votes_each=30).look()


def test_a_changed_mind_counts_as_it_stands(desk):
    for number in range(3):
        vote(desk, "v0001", rater=f"person {number}")
    first = desk.ledger.comparisons()[0]
    desk.ledger.retract("comparison", first.comparison.id, first.rater)
    assert watch(desk).standing().passed_over == 2


def test_without_odds_it_only_watches_and_a_damaged_version_is_not_gone_back_to(desk):
    for number in range(12):
        vote(desk, "v0001", rater=f"person {number}")
    assert watch(desk, odds=0.0).standing().passed_over == 12 and not watch(desk, odds=0.0).look()
    (desk.registry.root / "v0001" / "STABLE").unlink()
    with pytest.raises(AdapterRefused):
        watch(desk).look()
    assert desk.serving.current.version == "v0002"


def test_it_looks_by_itself_while_it_runs(desk):
    looking = Watch(desk.serving, desk.runs, desk.database, odds=20.0, votes_each=10, poll_seconds=0.02)
    looking.start()
    try:
        for number in range(12):
            vote(desk, "v0001", rater=f"person {number}")
        assert desk.serving.wait_for("v0001", timeout=10)
    finally:
        looking.stop()
