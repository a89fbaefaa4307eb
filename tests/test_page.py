"""What the page does, by calling its handlers: chat, votes, ratings, rooms, buttons, identity, and the doors."""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import replace

import gradio as gr
import pytest
from furnished import furnish, furnished, judge  # noqa: F401
from scripted_trainer import a_report

from memory.database import StorageError
from memory.schema import LabeledComparison
from studio import (
    chat_tab,
    feedback_browser,
    feedback_tab,
    health_tab,
    launch,
    page,
    training_tab,
    versions_tab,
)
from studio.chat_tab import call
from studio.intake import ChatRefused
from studio.opening import Opening, opened
from studio.policy.interface import ReplicaState
from studio.policy.scripted import ScriptedPolicy
from studio.theme import asset
from studio.visitors import Visitors, open_visitors
from studio.wording import every_so_many
from training.gate import decide
from training.settings import TrainingSettings

ANN, BOB = "a" * 32, "b" * 32
VISITORS = Visitors("0" * 64)
OWNER = VISITORS.owner(ANN)


class Browser:
    """One visitor's browser, without the browser."""

    def __init__(self, studio, visitor=ANN):
        self.opening, self.visitor = opened(studio), visitor
        self.studio = studio

    def ask(self, action, **sent):
        return call(self.opening, VISITORS, {"action": action, "visitor": self.visitor, **sent})

    def say(self, text, conversation=None):
        """Send, wait for the reply or replies, and look again."""
        room = self.ask("send", conversation=conversation, text=text)["room"]
        if room["live"]:
            exchange = self.studio.chat.exchange(room["live"]["id"], owner=VISITORS.owner(self.visitor))
            assert exchange.wait(10)
        return self.ask("open", conversation=room["conversation"]["id"])["room"]


@pytest.fixture
def single(tmp_path):
    with furnish(tmp_path / "data", compare_every=0) as studio:
        yield Browser(studio)


@pytest.fixture
def paired(furnished):  # noqa: F811
    return Browser(furnished)


def test_a_message_begins_a_conversation_and_its_reply_can_be_rated(single):
    room = single.say("What is a lighthouse for?")
    said, reply = room["entries"]
    assert (said["role"], said["text"]) == ("user", "What is a lighthouse for?")
    assert room["conversation"]["title"] == "What is a lighthouse for?"
    assert (reply["version"], reply["rating"], reply["finish"]) == ("base", None, "stop")
    assert single.ask("rate", turn=reply["turn"], value=1)["rating"] == 1
    again = single.ask("open", conversation=room["conversation"]["id"])["room"]
    assert again["entries"][1]["rating"] == 1 and again["stamp"] != room["stamp"]
    assert single.ask("rate", turn=reply["turn"], value=None)["rating"] is None
    assert single.studio.ledger.ratings() == []


def test_what_cannot_be_sent_is_refused_with_a_sentence_and_leaves_no_conversation(single):
    assert "empty" in single.ask("send", text="  \n ")["refused"]
    assert "20,001 characters" in single.ask("send", text="x" * 20_001)["refused"]
    assert "did not understand" in single.ask("format the disk")["refused"]
    assert single.ask("open", conversation="latest")["room"]["conversations"] == []


def test_others_conversations_do_not_exist(single):
    room = single.say("A secret")
    bob = Browser(single.studio, BOB)
    assert bob.ask("open", conversation=room["conversation"]["id"])["room"]["conversation"] is None
    for action, sent in (
        ("send", {"text": "hello"}),
        ("hide", {}),
        ("instruct", {"text": "x"}),
        ("glance", {}),
        ("retry", {"node": room["entries"][1]["node"]}),
    ):
        assert "not here" in bob.ask(action, conversation=room["conversation"]["id"], **sent)["refused"]
    assert "not here" in bob.ask("rate", turn=room["entries"][1]["turn"], value=-1)["refused"]


def test_edit_retry_correct_and_branches(single):
    room = single.say("First")
    talk, said, reply = room["conversation"]["id"], *room["entries"]
    corrected = single.ask("correct", turn=reply["turn"], text="As I would say it.")["room"]["entries"][1]
    assert (
        corrected["corrected"]
        and corrected["text"] == "As I would say it."
        and len(corrected["siblings"]) == 2
    )
    shown = single.ask("show", node=reply["node"])["room"]["entries"][1]
    assert shown["text"] == reply["text"]
    exchange = single.ask("retry", conversation=talk, node=reply["node"])["room"]["live"]
    if exchange is not None:  # it may be over already
        assert single.studio.chat.exchange(exchange["id"], owner=OWNER).wait(10)
    assert len(single.ask("open", conversation=talk)["room"]["entries"][1]["siblings"]) == 3
    edited = single.ask("edit", node=said["node"], text="Second")["room"]
    assert edited["entries"][0]["text"] == "Second" and len(edited["entries"][0]["siblings"]) == 2


def test_rename_hide_and_instruct(single):
    talk = single.say("First")["conversation"]["id"]
    renamed = single.ask("rename", conversation=talk, title="Lighthouses")["conversations"]
    assert [item["title"] for item in renamed] == ["Lighthouses"]
    room = single.ask("instruct", conversation=talk, text="Answer like a sailor.")["room"]
    assert room["conversation"]["system_prompt"] == "Answer like a sailor."
    assert single.ask("hide", conversation=talk)["conversations"] == []


def test_a_pair_hides_its_versions_until_the_vote_and_the_vote_is_found_again(paired):
    live = paired.say("Which is better?")["live"]
    assert (live["kind"], live["state"], len(live["sides"])) == ("pair", "vote", 2)
    assert not re.search("version|fingerprint|served|letter|base", repr(live))
    exchange = paired.studio.chat.exchange(live["id"], owner=OWNER)
    answer = paired.ask("vote", exchange=live["id"], choice="right")
    assert "more" in answer["say"] and answer["live"] is None
    labeled = paired.studio.ledger.label_of(live["id"], OWNER)
    assert isinstance(labeled, LabeledComparison) and labeled.label == exchange.sides[1].letter
    reply = paired.ask("open", conversation=answer["room"]["conversation"]["id"])["room"]["entries"][1]
    assert reply["text"] == live["sides"][1]["text"] and reply["compared"]["choice"] == "right"
    assert reply["compared"]["other_text"] == live["sides"][0]["text"]


def test_a_pair_waits_for_a_choice_or_a_skip(paired):
    room = paired.say("Which is better?")
    talk, live = room["conversation"]["id"], room["live"]
    assert "skip" in paired.ask("send", conversation=talk, text="And now?")["refused"]
    assert "expected one of" in paired.ask("vote", exchange=live["id"], choice="maybe")["refused"]
    assert paired.ask("skip", exchange=live["id"])["room"]["entries"][1]["text"] == live["sides"][0]["text"]
    assert paired.studio.ledger.comparisons() == []


def test_following_sends_only_what_is_new_and_ends(tmp_path):
    with furnish(tmp_path / "data", delay=0.01, compare_every=0) as studio:
        browser = Browser(studio)
        live = browser.ask("send", text="Stream, please")["room"]["live"]
        text, seen, known = live["sides"][0]["text"], live["sides"][0]["to"], live["where"]
        for _ in range(400):
            sent = {"visitor": ANN, "exchange": live["id"], "seen": [seen], "known": known}
            news = asyncio.run(chat_tab.follow(browser.opening, VISITORS, sent, followers=[0]))["live"]
            side = news["sides"][0]
            assert side["from"] == len(text)
            text, seen, known = text + side["text"], side["to"], news["where"]
            if news["state"] == "over":
                break
        room = browser.ask("open", conversation="latest")["room"]
        assert news["state"] == "over" and room["entries"][1]["text"] == text
    foreign = {"visitor": "nobody", "exchange": live["id"]}
    assert (
        "Reload" in asyncio.run(chat_tab.follow(browser.opening, VISITORS, foreign, followers=[0]))["refused"]
    )


def test_a_reply_under_way_is_found_by_a_reloaded_page_and_refuses_a_second_tab(tmp_path):
    with furnish(tmp_path / "data", delay=0.05, compare_every=0) as studio:
        first, second = Browser(studio), Browser(studio)
        room = first.ask("send", text="A long answer, please")["room"]
        talk = room["conversation"]["id"]
        assert second.ask("open", conversation=talk)["room"]["live"]["id"] == room["live"]["id"]
        assert "still being written" in second.ask("send", conversation=talk, text="Me too")["refused"]
        assert first.ask("stop", exchange=room["live"]["id"]) == {}
        assert studio.chat.exchange(room["live"]["id"], owner=OWNER).wait(10)
        assert studio.ledger.counts().ratings_down == 0


def test_while_the_studio_opens_nothing_is_lost_and_a_failure_says_why():
    never = Opening(lambda: 1 / 0)
    assert call(never, VISITORS, {"action": "open", "visitor": ANN}) == {"opening": True, "problem": ""}
    assert "being loaded" in page.draw_room(never, VISITORS, ANN, "training")
    never.begin().wait(10)
    assert call(never, VISITORS, {"action": "open", "visitor": ANN})["problem"] == "division by zero"
    assert "division by zero" in page.draw_room(never, VISITORS, ANN, "training")
    assert page.act(never, VISITORS, ANN, "retrain")[1] is False


def test_a_visitor_is_a_salted_hash_that_survives_a_restart(tmp_path):
    first, again = open_visitors(tmp_path), open_visitors(tmp_path)
    assert first.owner(ANN) == again.owner(ANN) != first.owner(BOB)
    assert ANN not in first.owner(ANN) and open_visitors(tmp_path / "other").owner(ANN) != first.owner(ANN)
    for forged in ("", None, 7, "A" * 32, ANN + "0", "../" * 10 + "aa"):
        with pytest.raises(ChatRefused, match="Reload"):
            first.owner(forged)
    (tmp_path / "visitors.salt").write_text("short")
    with pytest.raises(ValueError, match="damaged"):
        open_visitors(tmp_path)


def test_the_feedback_room_counts_escapes_and_knows_what_is_mine(paired):
    assert "Nobody has judged" in feedback_tab.render(paired.studio, OWNER, 0.0)
    judge(paired.studio, OWNER, times=2)
    talk = paired.say("<script>alert(1)</script>")["live"]
    paired.ask("vote", exchange=talk["id"], choice="left")
    drawn = feedback_tab.render(paired.studio, OWNER, paired.studio.database.clock())
    assert "People have given 3 comparisons." in drawn and "3 judgements of these are yours" in drawn
    newest = feedback_browser.look(paired.studio, OWNER, {})["rows"][0]
    assert newest["reply"].endswith("<script>alert(1)</script>"), "the page puts it in as text"
    assert "are yours" not in feedback_tab.render(paired.studio, VISITORS.owner(BOB), 0.0)


def test_retrain_is_refused_with_what_is_missing_then_runs_and_is_served(paired):
    studio, opening = paired.studio, paired.opening
    sentence, done = page.act(opening, VISITORS, ANN, "retrain")
    assert not done and "needed" in sentence
    assert re.search(r'data-event="retrain"[^>]* disabled', training_tab.render(studio, OWNER, 0.0))
    judge(studio, OWNER, times=40)
    assert not re.search(r'data-event="retrain"[^>]* disabled', training_tab.render(studio, OWNER, 0.0))
    assert page.act(opening, VISITORS, ANN, "retrain") == (
        "The retraining has begun. The chat goes on meanwhile.",
        True,
    )
    assert (
        "already" in page.act(opening, VISITORS, ANN, "retrain")[0]
        or "under way" in page.act(opening, VISITORS, ANN, "retrain")[0]
    )
    assert 'role="progressbar"' in training_tab.render(studio, OWNER, 0.0)
    assert studio.serving.wait_for("v0001", timeout=60)
    assert studio.retraining.wait(studio.runs.list()[0].id, timeout=30)
    drawn = training_tab.render(studio, OWNER, studio.database.clock())
    assert "v0001 passed the check." in drawn and drawn.count("<polyline") == 2
    assert "What is a &lt;b&gt;lighthouse" in drawn
    versions = versions_tab.render(studio, OWNER, studio.database.clock())
    assert "Your 40 ratings are in this version." in versions and "00000001" in versions
    assert health_tab.is_worth_showing(studio) and "tokens" in health_tab.render(studio, OWNER, 0.0)
    sentence, done = page.act(
        opening, VISITORS, ANN, "roll_back", version="base", reason="I liked it better <b>"
    )
    assert done and studio.serving.current.version == "base"
    history = versions_tab.render(studio, OWNER, studio.database.clock())
    assert "I liked it better &lt;b&gt;" in history and ">you<" in history


def test_a_broken_adapter_is_listed_with_its_reason_and_is_not_served(paired):
    (paired.studio.settings.adapters_dir / "v0007").mkdir(parents=True)
    drawn = versions_tab.render(paired.studio, OWNER, 0.0)
    assert "never served" in drawn and "publication never finished" in drawn
    sentence, done = page.act(paired.opening, VISITORS, ANN, "roll_back", version="v0007")
    assert not done and "STABLE" in sentence and paired.studio.serving.current.version == "base"


class Replicated(ScriptedPolicy):
    """A policy with a server that answers and one that has died."""

    def replica_states(self):
        return [
            ReplicaState("http://one:8000", True, "", 2),
            ReplicaState("http://two:8000", False, "cannot be reached: <refused>", 0),
        ]


def test_model_servers_are_listed_with_what_is_wrong(paired):
    assert "Model servers" not in versions_tab.render(paired.studio, OWNER, 0.0)
    drawn = versions_tab.render(replace(paired.studio, policy=Replicated()), OWNER, 0.0)
    rows = drawn.split("Model servers")[1].split("<tr>")[2:4]
    assert "http://one:8000" in rows[0] and ">answers<" in rows[0] and "2 replies under way" in rows[0]
    assert "http://two:8000" in rows[1] and ">out<" in rows[1] and "&lt;refused&gt;" in rows[1]


def test_a_rejected_candidate_says_which_check_failed(paired):
    settings = TrainingSettings(data_dir=paired.studio.settings.data_dir)
    report = a_report(kl=500.0)
    verdict = decide(report, settings)
    shown = {"evaluation": report.to_dict(), "verdict": verdict.to_dict()}
    run = paired.studio.runs.queue("dpo", "base", settings.runs_dir, OWNER)
    drawn = training_tab._evaluation(shown, run)
    assert "did not pass" in drawn and drawn.count("not passed") == 1 and "at most 60" in drawn


def test_the_pulse_sends_only_what_changed(paired):
    updates, seen = page.pulse(paired.opening, VISITORS, ANN, "training", {})
    assert [isinstance(update, str) for update in updates] == [True, False, True, False, False, False]
    again, seen = page.pulse(paired.opening, VISITORS, ANN, "training", seen)
    assert all(update == gr.skip() for update in again)
    paired.say("Something new")
    third, _ = page.pulse(paired.opening, VISITORS, ANN, "training", seen)
    assert [isinstance(update, str) for update in third] == [True, False, False, False, False, False]


def test_a_room_tells_an_unknown_visitor_to_reload(paired):
    assert "Reload" in page.draw_room(paired.opening, VISITORS, "", "versions")


def test_a_port_in_use_is_said_before_anything_is_loaded(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = furnish_settings(tmp_path, port=port)
        assert launch.launch(settings) == 1
    said = capsys.readouterr().err
    assert f"Port {port} on 127.0.0.1 is in use" in said and f"--port {port + 1}" in said


def test_a_space_listens_on_every_interface_unless_told_otherwise(tmp_path):
    assert launch.address(furnish_settings(tmp_path), {"SPACE_ID": "me/it"})[0] == "0.0.0.0"
    assert (
        launch.address(furnish_settings(tmp_path, host="127.0.0.1"), {"SPACE_ID": "me/it"})[0] == "127.0.0.1"
    )
    assert launch.address(furnish_settings(tmp_path), {})[0] == "127.0.0.1"


def furnish_settings(tmp_path, **settings):
    from studio.settings import StudioSettings

    return StudioSettings(data_dir=tmp_path / "data", policy="scripted", **settings)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", [":root", ".dark"])
def test_text_has_the_contrast_of_wcag_aa(mode):
    """WCAG 2.2, 1.4.3: (lighter + 0.05) / (darker + 0.05) is at least 4.5 for text, and 3 for the edges of controls."""
    block = asset("page.css").split(f"{mode} {{", 1)[1].split("}", 1)[0]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    for text in ("ink", "ink-soft", "accent", "bad"):
        for ground in ("paper", "surface", "sunken" if text.startswith("ink") else "surface"):
            assert ratio(colours[text], colours[ground]) >= 4.5, (text, ground)
    for text, ground in (
        ("on-accent", "accent"),
        ("accent", "accent-soft"),
        ("bad", "bad-soft"),
        ("ink", "bad-soft"),
    ):
        assert ratio(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert ratio(colours["line-strong"], colours["surface"]) >= 3


def ratio(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_a_storage_fault_leaves_the_strip_as_it_was(paired, monkeypatch):
    def full(*_args):
        raise StorageError(28, "The disk is full.")

    monkeypatch.setattr(type(paired.studio.runs), "active", full)
    updates, seen = page.pulse(paired.opening, VISITORS, ANN, "training", {"strip": "old"})
    assert all(update == gr.skip() for update in updates) and seen == {"strip": "old"}
    monkeypatch.setattr(type(paired.studio.chat), "send", full)
    assert paired.ask("send", text="Hello")["refused"] == "The disk is full."


def test_how_often_pairs_come_is_said_in_words(single):
    assert [every_so_many(n) for n in (1, 2, 3, 6, 11, 22)] == [
        "every reply",
        "every second reply",
        "every third reply",
        "every 6th reply",
        "every 11th reply",
        "every 22nd reply",
    ]
    assert single.ask("open", conversation=None)["room"]["compared"] == ""
