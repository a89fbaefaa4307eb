"""A whole studio for tests of the page: the real parts, the scripted policy, and a trainer that needs no model."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from studio.build import Studio, build
from studio.policy.scripted import ScriptedPolicy
from studio.retraining import Retraining
from studio.settings import StudioSettings

TRAINER = (sys.executable, str(Path(__file__).with_name("scripted_trainer.py")))


def reply(messages, version: str, seed: int) -> str:
    """What the policy says: never the same twice, so that every pair can be compared."""
    return f"Answer number {seed % 9973} to what you said, which was: {messages[-1].content[:200]}"


def furnish(folder: Path, *, delay: float = 0.0, seed: int = 1, policy=None, **settings) -> Studio:
    """A studio whose data are in `folder`. `delay` is the scripted policy's seconds per word; `policy` stands in
    its place."""
    chosen = StudioSettings(data_dir=folder, policy="scripted", training_niceness=0, **settings)
    policy = policy or ScriptedPolicy(delay=delay, script=reply)
    studio = build(chosen, policy=policy, rng=random.Random(seed))
    trainer = Retraining(chosen, studio.runs, studio.ledger, command=TRAINER)
    return replace(studio, retraining=trainer)


def judge(studio: Studio, owner: str, *, times: int) -> None:
    """Decide `times` pairs, each in a conversation of its own: left and right in turn."""
    for number in range(times):
        conversation = studio.chat.owned.begin(owner)
        exchange = studio.chat.send(owner, conversation.id, f"Question {number}")
        assert exchange.wait(10) and exchange.phase == "vote", exchange.phase
        studio.chat.vote(exchange.id, exchange.sides[number % 2].letter, owner, owner=owner)


@pytest.fixture
def furnished(tmp_path):
    with furnish(tmp_path / "data", compare_every=1) as studio:
        yield studio
