"""Judging in the chat: every kind of judgement, changed minds, undo, orders, guidelines, consent, finding it again."""

from __future__ import annotations

import os

import pytest
from furnished import furnish

from memory.schema import Critique, Occurrence, Ranking, Score
from studio.chat_tab import call
from studio.guidelines import DEFAULT, Guidelines
from studio.judging import CONSENT_VERSION
from studio.opening import opened
from studio.visitors import Visitors

ANN, BOB = "a" * 32, "b" * 32
VISITORS = Visitors("0" * 64)
OWNER = VISITORS.owner(ANN)


class Browser:
    """A visitor's browser, without the browser."""

    def __init__(self, studio, visitor=ANN):
        self.studio, self.visitor, self.opening = studio, visitor, opened(studio)

    def ask(self, action, **sent):
        return call(self.opening, VISITORS, {"action": action, "visitor": self.visitor, **sent})

    def say(self, text, conversation=None):
        """Send, wait for the reply or replies, and look again."""
        room = self.ask("send", conversation=conversation, text=text)["room"]
        self.wait(room)
        return self.open(room)

    def wait(self, room):
        if room["live"]:
            owner = VISITORS.owner(self.visitor)
            assert self.studio.chat.exchange(room["live"]["id"], owner=owner).wait(10)

    def open(self, room):
        return self.ask("open", conversation=room["conversation"]["id"])["room"]


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with furnish(tmp_path_factory.mktemp("judging") / "data", compare_every=0) as built:
        yield built


@pytest.fixture
def ann(studio):
    return Browser(studio)


@pytest.fixture
def room(ann):
    return ann.say("What is a lighthouse for?")


@pytest.fixture
def turn(room):
    return room["entries"][1]["turn"]


def judged(ann, room):
    return ann.open(room)["entries"][1]["judged"]


def test_a_thumb_takes_reasons_and_a_comment_and_they_are_found_again(ann, room, turn):
    answer = ann.ask("rate", turn=turn, value=-1, reasons=["too long"], comment="It rambles.")
    assert answer["judged"] == {"scores": {}, "reasons": ["too long"], "comment": "It rambles."}
    assert judged(ann, room) == answer["judged"] and ann.open(room)["entries"][1]["rating"] == -1
    ann.ask("rate", turn=turn, value=-1, reasons=[])
    assert ann.studio.ledger.rating_of(turn, OWNER).reasons == ()
    assert ann.ask("rate", turn=turn, value=None)["judged"] == {"scores": {}}


def test_marks_are_given_changed_and_taken_back_one_by_one(ann, room, turn):
    ann.ask("score", turn=turn, criterion="helpful", value=2)
    ann.ask("score", turn=turn, criterion="helpful", value=4)
    assert ann.ask("score", turn=turn, criterion="clear", value=5)["judged"]["scores"] == {
        "helpful": 4,
        "clear": 5,
    }
    ann.ask("score", turn=turn, criterion="clear", value=None)
    assert judged(ann, room)["scores"] == {"helpful": 4}
    given = ann.studio.ledger.judgements_of(room["conversation"]["id"], OWNER)
    assert [(type(said), said.value) for said in given] == [(Score, 4)]
    assert "expected 1 to 5" in ann.ask("score", turn=turn, criterion="helpful", value=6)["refused"]
    assert "expected 1 to 5" in ann.ask("score", turn=turn, criterion="funny", value=3)["refused"]


def test_a_critique_is_kept_in_the_persons_words(ann, room, turn):
    ann.ask("critique", turn=turn, text="It never says what a lighthouse is.\x00")
    assert judged(ann, room)["critique"] == "It never says what a lighthouse is."
    assert ann.ask("critique", turn=turn, text=" ")["say"] == "Taken back."
    assert "critique" not in judged(ann, room)


def test_replies_to_one_prompt_are_put_in_order(ann, room):
    for _ in range(2):
        node = ann.open(room)["entries"][-1]["node"]
        ann.wait(ann.ask("retry", conversation=room["conversation"]["id"], node=node)["room"])
    node = ann.open(room)["entries"][-1]["node"]
    answer = ann.ask("replies", node=node)
    turns = [reply["turn"] for reply in answer["replies"]]
    assert (len(set(turns)), answer["standing"]) == (3, [])
    assert not any("version" in reply for reply in answer["replies"])
    best_last = ann.ask("rank", turns=turns[::-1])
    assert best_last["room"]["entries"][1]["judged"]["rank"] == {"place": 1, "of": 3}
    again = ann.ask("replies", node=node)
    assert (again["standing"], [reply["turn"] for reply in again["replies"]]) == (turns[::-1], turns[::-1])
    ann.ask("rank", turns=turns)
    (order,) = [said for said in ann.studio.ledger.rankings() if set(said.turn_ids) == set(turns)]
    assert order == Ranking(tuple(turns), OWNER, order.created_at)
    ann.ask("rank", turns=turns, forget=True)
    assert ann.ask("replies", node=node)["standing"] == []
    assert "two or more" in ann.ask("rank", turns=turns[:1])["refused"]
    other = ann.say("Something else?")["entries"][1]["turn"]
    assert "same prompt" in ann.ask("rank", turns=[turns[0], other])["refused"]


def test_undo_puts_back_what_stood_before_and_undoing_that_brings_it_back(ann, room, turn):
    talk = room["conversation"]["id"]
    assert "nothing to undo" in ann.ask("undo", conversation=talk)["refused"]
    ann.ask("score", turn=turn, criterion="helpful", value=2)
    ann.ask("rate", turn=turn, value=1)
    ann.ask("rate", turn=turn, value=-1, reasons=["wrong"])
    answer = ann.ask("undo", conversation=talk)
    assert "thumb is as it was" in answer["say"] and answer["room"]["entries"][1]["rating"] == 1
    assert ann.ask("undo", conversation=talk)["room"]["entries"][1]["rating"] == -1
    ann.ask("rate", turn=turn, value=None)
    assert ann.ask("undo", conversation=talk)["room"]["entries"][1]["judged"]["reasons"] == ["wrong"]
    ann.ask("critique", turn=turn, text="Too long.")
    assert "critique" not in ann.ask("undo", conversation=talk)["room"]["entries"][1]["judged"]
    assert judged(ann, room)["scores"] == {"helpful": 2}


def test_guidelines_are_shown_and_each_event_says_which(ann, room, turn, tmp_path):
    shown = ann.ask("guidelines")["guidelines"]
    assert shown["text"] == DEFAULT.read_text(encoding="utf-8") and "Helpful" in shown["text"]
    ann.ask("rate", turn=turn, value=1, guidelines=shown["version"])
    ann.ask("score", turn=turn, criterion="clear", value=3, guidelines="g-never-shown")
    with ann.studio.database.read() as connection:
        query = "SELECT DISTINCT guidelines FROM events WHERE category = 'judgement' AND target = '{}'"
        assert connection.exec_driver_sql(query.format(turn)).all() == [(shown["version"],)]
    kept = ann.studio.ledger.noted("guidelines", shown["version"])
    assert isinstance(kept, Occurrence) and kept.detail == {"text": shown["text"]}


def test_edited_guidelines_take_effect_at_once_and_the_old_text_is_kept(studio, tmp_path):
    file = tmp_path / "guidelines.md"
    file.write_text("Be kind.")
    guidelines = Guidelines(studio.ledger, file)
    first = guidelines.current()
    file.write_text("Be strict, please.")
    second = guidelines.current()
    assert (first.text, second.text) == ("Be kind.", "Be strict, please.")
    assert guidelines.shown(first.version) == first.version != second.version
    assert guidelines.shown("g-other") == guidelines.shown(None) == second.version
    file.write_bytes(b"\xff\xfe not text")
    os.utime(file, ns=(1, 1))
    assert guidelines.current() == second
    assert studio.ledger.noted("guidelines", first.version).detail == {"text": "Be kind."}
    with pytest.raises(ValueError, match=r"cannot be read.*THUMBPRINT_GUIDELINES"):
        Guidelines(studio.ledger, tmp_path / "missing.md")


def test_others_replies_cannot_be_judged(ann, room, turn):
    bob = Browser(ann.studio, BOB)
    node, talk = room["entries"][1]["node"], room["conversation"]["id"]
    for sent in (
        {"action": "score", "turn": turn, "criterion": "clear", "value": 1},
        {"action": "critique", "turn": turn, "text": "Mine."},
        {"action": "replies", "node": node},
        {"action": "rank", "turns": [turn, turn]},
        {"action": "undo", "conversation": talk},
        {"action": "vote_again", "comparison": "none", "choice": "left"},
    ):
        assert "not here" in bob.ask(**sent)["refused"], sent
    assert judged(ann, room) == {"scores": {}}


def test_a_vote_is_changed_taken_back_and_undone_where_the_conversation_has_moved_on(tmp_path):
    with furnish(tmp_path / "data", compare_every=1) as studio:
        ann = Browser(studio)
        live = ann.say("Which is better?")["live"]
        ann.ask("vote", exchange=live["id"], choice="right", guidelines=None)
        first = studio.ledger.label_of(live["id"], OWNER)
        room = ann.ask("vote_again", comparison=live["id"], choice="left")["room"]
        assert (room["entries"][1]["compared"]["choice"], room["live"]) == ("left", None)
        second = studio.ledger.label_of(live["id"], OWNER)
        assert {first.label, second.label} == {"A", "B"} and second.seconds == first.seconds
        assert ann.ask("vote_again", comparison=live["id"], choice="tie")["room"]["entries"][1]["compared"]
        assert studio.ledger.counts().ties == 1
        talk = room["conversation"]["id"]
        undone = ann.ask("undo", conversation=talk)["room"]
        assert undone["entries"][1]["compared"]["choice"] == "left"
        left = ann.ask("vote_again", comparison=live["id"], choice=None)["room"]["entries"][1]["compared"]
        assert studio.ledger.comparisons() == []
        assert (left["choice"], left["version"], left["other_version"]) == (None, "", "")
        assert "expected one of" in ann.ask("vote_again", comparison=live["id"], choice="up")["refused"]
        versions = {studio.judging.guidelines.current().version, ""}
        with studio.database.read() as connection:
            said = connection.exec_driver_sql(
                "SELECT category, guidelines FROM events WHERE kind = 'comparison'"
            )
            assert {guidelines for _, guidelines in said} == versions


def test_a_pair_that_was_skipped_can_still_be_judged(tmp_path):
    with furnish(tmp_path / "data", compare_every=1) as studio:
        ann = Browser(studio)
        live = ann.say("Which is better?")["live"]
        compared = ann.ask("skip", exchange=live["id"])["room"]["entries"][1]["compared"]
        assert (compared["id"], compared["choice"], compared["place"]) == (live["id"], None, "left")
        room = ann.ask("vote_again", comparison=live["id"], choice="right")["room"]
        assert room["entries"][1]["compared"]["choice"] == "right"
        assert studio.ledger.comparisons()[0].chosen == live["sides"][1]["text"]


def test_consent_is_asked_once_and_nothing_is_kept_before(tmp_path):
    with furnish(tmp_path / "data", compare_every=0, host="0.0.0.0") as studio:
        ann, bob = Browser(studio), Browser(studio, BOB)
        room = ann.say("What is a lighthouse for?")
        turn = room["entries"][1]["turn"]
        for sent in (
            {"action": "rate", "turn": turn, "value": 1},
            {"action": "score", "turn": turn, "criterion": "clear", "value": 1},
            {"action": "critique", "turn": turn, "text": "Good."},
            {"action": "correct", "turn": turn, "text": "Better."},
        ):
            answer = ann.ask(**sent)
            assert "agree first" in answer["refused"] and len(answer["consent"]) == 4
        assert studio.ledger.judgements_of(room["conversation"]["id"], OWNER) == []
        assert ann.ask("consent") == {} == ann.ask("consent")
        assert ann.ask("rate", turn=turn, value=1)["rating"] == 1
        agreed = studio.ledger.occurrences("consent")
        assert [(found.target, found.actor) for found in agreed] == [(CONSENT_VERSION, OWNER)]
        assert "consent" in bob.ask("rate", turn=turn, value=1)


@pytest.mark.parametrize(
    ("host", "ask", "asked"),
    [("127.0.0.1", "auto", False), ("127.0.0.1", "always", True), ("0.0.0.0", "never", False)],
)
def test_whether_consent_is_asked_is_a_setting(tmp_path, host, ask, asked):
    with furnish(tmp_path / "data", compare_every=0, host=host, ask_consent=ask) as studio:
        ann = Browser(studio)
        turn = ann.say("What is a lighthouse for?")["entries"][1]["turn"]
        assert ("consent" in ann.ask("rate", turn=turn, value=1)) is asked


def test_a_judgement_is_only_ever_a_persons(ann, room):
    """Retrying, stopping and looking leave no judgement behind."""
    talk, node = room["conversation"]["id"], room["entries"][1]["node"]
    ann.wait(ann.ask("retry", conversation=talk, node=node)["room"])
    ann.ask("open", conversation=talk)
    ann.ask("replies", node=node)
    assert ann.studio.ledger.judgements_of(talk, OWNER) == []
    assert not any(isinstance(said, Critique) for said in ann.studio.feedback.given(talk, OWNER, owner=OWNER))
