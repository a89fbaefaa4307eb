"""The thread of a conversation: what a follow-up may refer to, and the same thing said again in another manner.

Knows the topic at hand and what was last said about it; knows nothing of wording or of who says what next.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from training.mini.grammar import Body, Reply
from training.mini.style import SHORT
from training.mini.topics import Fact, Topic

Demands = dict[str, int | bool]
"""Axes of style that somebody asked for, and how they are to be."""


@dataclass
class Thread:
    """What a follow-up may refer to."""

    topic: Topic | None = None
    body: Body | None = None
    reply: Reply | None = None
    told: list[Fact] = field(default_factory=list)
    tips: list[str] = field(default_factory=list)
    explainable: Fact | None = None


def note(thread: Thread, body: Body, reply: Reply) -> None:
    """Remember which facts and tips the reply told, and the one that "why is that?" would mean."""
    topic = thread.topic
    if topic is None:
        return
    facts = [fact for fact in topic.facts if fact.say in reply.text]
    thread.told += [fact for fact in facts if fact not in thread.told]
    thread.tips += [tip for tip in topic.tips if tip in reply.text or tip.capitalize() in reply.text]
    first = body.core[0].text
    explained = [fact for fact in facts if fact.because]
    if len(explained) == 1 and len(facts) == 1:
        thread.explainable = explained[0]
    elif facts and facts[0].say in first and facts[0].because and reply.text.count(".") < 3:
        thread.explainable = facts[0]
    else:
        thread.explainable = None


def say_again(body: Body, intent: str) -> tuple[Body, Demands]:
    """The same thing in another manner."""
    if intent == "shorter":
        short = Body(body.core[:1], subject=body.subject, questions=body.questions, exact=True)
        return short, {"length": SHORT, "listing": False, "example": False, "tip": False}
    demands: dict[str, Demands] = {
        "again": {},
        "list": {"listing": True},
        "formal": {"casual": False},
        "casual": {"casual": True},
    }
    return body, demands[intent]
