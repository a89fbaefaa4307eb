"""The studio as a whole: what is built, what is kept over a restart, and that it closes in order."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from desk import ANN
from tiny import save_tiny_base

from memory.database import NewerDatabaseError, open_database
from studio.build import build
from studio.policy.scripted import ScriptedPolicy
from studio.settings import StudioSettings
from training.settings import REPOSITORY


def scripted(folder, **changes) -> StudioSettings:
    return StudioSettings(data_dir=folder, policy="scripted", **{"compare_every": 2} | changes)


def quick_policy() -> ScriptedPolicy:
    """Answers at once, and never twice the same."""
    return ScriptedPolicy(delay=0.0, script=lambda messages, version, seed: f"{version} {seed}")


def talk(studio, where, text):
    exchange = studio.chat.send(ANN, where, text)
    assert exchange.wait(60) and not exchange.error, exchange.notice
    return exchange


def test_a_studio_remembers_conversations_ratings_and_votes_over_a_restart(tmp_path):
    with build(scripted(tmp_path), policy=quick_policy()) as studio:
        where = studio.chat.owned.begin(ANN).id
        turn = talk(studio, where, "hello").first.turn_id
        studio.feedback.rate(turn, 1, ANN, owner=ANN)
        pair = talk(studio, where, "more")
        studio.chat.vote(pair.id, "B", ANN, owner=ANN)
        shown = [node.message for node in studio.chat.owned.path(ANN, where)]
    with build(scripted(tmp_path), policy=quick_policy()) as studio:
        assert [conversation.id for conversation in studio.chat.owned.list(ANN)] == [where]
        assert [node.message for node in studio.chat.owned.path(ANN, where)] == shown
        assert studio.ledger.rating_of(turn, ANN).value == 1
        assert studio.ledger.label_of(pair.id, ANN).label == "B"
        assert studio.serving.current == studio.policy.base()
        assert studio.retraining.readiness().have == 1


def test_the_settings_choose_and_shape_the_policy(tmp_path):
    with build(scripted(tmp_path, context_tokens=333, max_rows=3, max_new_tokens=20)) as studio:
        assert isinstance(studio.policy, ScriptedPolicy)
        assert (studio.policy.context_tokens, studio.policy.max_rows, studio.policy.max_tokens) == (
            333,
            3,
            20,
        )


def test_closing_ends_replies_writes_them_and_stops_every_thread(tmp_path):
    before = set(threading.enumerate())
    studio = build(scripted(tmp_path), policy=ScriptedPolicy(delay=0.01, script=lambda *_: "word " * 1_000))
    where = studio.chat.owned.begin(ANN).id
    exchange = studio.chat.send(ANN, where, "talk")
    next(iter(exchange.first.stream))
    studio.close()
    studio.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
    database = open_database(studio.settings.resolved_database_url)
    try:
        studio_turn = type(studio.ledger)(database).turn(exchange.first.turn_id)
    finally:
        database.close()
    assert studio_turn.finish == "cancelled" and studio_turn.completion == exchange.first.stream.text


def test_what_was_opened_is_closed_again_when_a_later_part_cannot_start(tmp_path, monkeypatch):
    policy = ScriptedPolicy(delay=0.0)
    closed = []
    monkeypatch.setattr(ScriptedPolicy, "close", lambda self: closed.append(self))

    def failing(_self):
        raise OSError("The promotions cannot be read.")

    monkeypatch.setattr("memory.runs.Runs.served", failing)
    with pytest.raises(OSError, match="promotions cannot be read"):
        build(scripted(tmp_path), policy=policy)
    assert closed == [policy]
    assert "recorder" not in {thread.name for thread in threading.enumerate()}


def test_a_database_from_a_newer_studio_is_refused_before_anything_is_loaded(tmp_path):
    settings = scripted(tmp_path)
    database = open_database(settings.resolved_database_url)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE thumbprint_version SET version_num = '9999'")
    database.close()
    with pytest.raises(NewerDatabaseError, match="9999"):
        build(settings)


def test_importing_the_composition_loads_no_model_library():
    heavy = "{'torch', 'transformers', 'trl', 'gradio'}"
    code = f"import sys, studio.build; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_model_on_this_machine_answers(tmp_path):
    base = save_tiny_base(tmp_path / "base")
    settings = StudioSettings(
        data_dir=tmp_path / "data",
        model=str(base),
        quantization="none",
        context_tokens=256,
        max_new_tokens=8,
        compare_every=2,
        chat_threads=1,
    )
    with build(settings) as studio:
        where = studio.chat.owned.begin(ANN).id
        first, second = talk(studio, where, "What is tea?"), talk(studio, where, "And coffee?")
        turn = studio.ledger.turn(first.first.turn_id)
        assert turn.fingerprint == studio.serving.current.fingerprint
        assert 0 < turn.completion_tokens <= 8
        assert second.kind == "pair" and len(second.prompt) == 3
