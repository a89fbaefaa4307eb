"""Simulated people who give thumbs and rewrite replies: what they change is to their taste, and what they say stays."""

from __future__ import annotations

import pytest
from furnished import furnish

from benchmarks.editing import edit_of
from benchmarks.rated import Pair, Reply, corrected, judged, thumbed
from benchmarks.raters import RATERS, Rater
from benchmarks.simulation import PERSON, collect_corrections, collect_thumbs
from memory.schema import Message
from training.rated import rated_rows, written_rows

REPLIES = {
    "question": "Put it in cold water. Wait ten minutes!",
    "no_question": "Put it in cold water. Shall I say more?",
    "short": "Put it in cold water. Then you wait for ten whole minutes, and after that you take it out of the pot.",
    "no_exclamation": "Cold water! Wait!",
    "exclamation": "Cold water.",
    "lists": "Cold water. Then wait.",
    "polite": "Cold water.",
    "no_emoji": "Cold water 🙂.",
    "emoji": "Cold water.",
    "calm_question": "Cold water!",
}


@pytest.mark.parametrize("name", REPLIES)
def test_an_edit_turns_a_reply_that_is_not_to_the_taste_into_one_that_is(name):
    rater, reply = RATERS[name], REPLIES[name]
    assert not rater.satisfied("How?", reply)
    edited = edit_of(rater)(reply)
    assert rater.satisfied("How?", edited)
    assert "old water" in edited, "the rest of it stays"


def test_a_taste_without_an_edit_is_named():
    with pytest.raises(
        ValueError, match="Rater coin has no way to correct a reply; expected one of question"
    ):
        edit_of(RATERS["coin"])


def test_thumbs_go_by_what_is_good_enough_and_mistakes_repeat():
    rater = RATERS["question"]
    assert (rater.thumb("How?", "Tea?"), rater.thumb("How?", "Tea.")) == (1, -1)
    noisy = Rater("noisy", rater.taste, mistakes=0.3)
    thumbs = [noisy.thumb(f"{n}?", "Tea?") for n in range(200)]
    assert thumbs == [noisy.thumb(f"{n}?", "Tea?") for n in range(200)]
    assert 0.2 < thumbs.count(-1) / 200 < 0.4


PAIRS = [
    Pair(f"c{n}", (Message("user", f"What about {n}?"),), Reply(first, True), Reply(second, False))
    for n, (first, second) in enumerate([("Tea?", "Tea."), ("Tea.", "Tea?"), ("Tea!", "Tea.")])
]


def test_the_same_pairs_as_votes_thumbs_or_corrections():
    rater = RATERS["question"]
    assert [one.label for one in judged(PAIRS, rater).comparisons] == ["A", "B", "tie"]
    thumbs = rated_rows(thumbed(PAIRS, rater))
    assert [row.liked for row in thumbs] == [True, False, False, True, False, False]
    assert [row.finished for row in thumbs] == [True, False] * 3
    feedback = corrected(PAIRS, rater)
    assert [row.completion for row in rated_rows(feedback)] == ["Tea?"]
    assert all(rater.satisfied("How?", row.completion) for row in written_rows(feedback))
    assert len(written_rows(feedback)) == 2


@pytest.fixture
def studio(tmp_path):
    def script(messages, version, seed):
        return "Cold water, then wait." if seed % 2 else "Cold water, then wait?"

    from studio.policy.scripted import ScriptedPolicy

    with furnish(tmp_path, compare_every=0, policy=ScriptedPolicy(delay=0.0, script=script)) as made:
        yield made


def test_thumbs_given_in_the_chat_are_in_the_ledger(studio):
    down = collect_thumbs(studio, RATERS["question"], thumbs=12, seed=1)
    counts = studio.ledger.counts()
    assert (counts.ratings_up, counts.ratings_down) == (12 - down, down)
    assert 0 < down < 12
    assert {rating.rater for rating in studio.ledger.ratings()} == {"question"}


def test_replies_corrected_in_the_chat_are_in_the_ledger_and_the_talk_goes_on_from_them(studio):
    count = collect_corrections(studio, RATERS["question"], replies=12, seed=1)
    counts = studio.ledger.counts()
    assert (counts.corrections, counts.ratings_up, counts.ratings_down) == (count, 12 - count, 0)
    said = {correction.text for correction in studio.ledger.corrections()}
    heads = [
        studio.conversations.path(one.id)[-1].message.content for one in studio.conversations.list(PERSON)
    ]
    assert all(head in said or head.endswith("?") for head in heads)
