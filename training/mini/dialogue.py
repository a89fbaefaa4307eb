"""Whole dialogues: who says what next, what a follow-up refers to, and which splits the words may come from.

Holds the thread of a conversation (topic, facts told, question asked last) and asks `answering`, `talk`, `stories`
and `arithmetic` what to say and `grammar` how. Knows nothing of tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.mini import answering, arithmetic, asking, phrases, stories
from training.mini.grammar import FIXED, REMARK, Body, Clause, render
from training.mini.mix import (
    FOLLOW_UP_INTENTS,
    RUDE_RATE,
    SYSTEM_RATE,
    TOPIC_INTENTS,
    TURNS,
    WRONG_RATE,
    Mix,
)
from training.mini.style import draw, override
from training.mini.systems import System, draw_system
from training.mini.talk import PEOPLE, Talk, big_sum, fill, invent_name, load_talk
from training.mini.thread import Demands, Thread, note, say_again
from training.mini.topics import Ask, Atlas, Topic, load_atlas

_COUNTS = {2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
_RUDE = (
    "that is a silly question", "look it up yourself", "what a boring thing to ask", "nobody cares about that",
    "stop wasting time with such questions", "that is too obvious to explain",
)  # fmt: skip
_GOODBYE_TO_OFFER = ("that is fine", "all right", "very well")


Said = tuple[str, Body, Demands]
"""What the user says, what to answer, and what style the user asks for."""


@dataclass(frozen=True)
class Message:
    """One message, in the words of a chat template: role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class World:
    """Everything that can be talked about."""

    atlas: Atlas
    talk: Talk
    askings: asking.Askings


def load_world() -> World:
    atlas = load_atlas()
    return World(atlas, load_talk(frozenset(topic.name for topic in atlas.topics)), asking.load_askings())


class Writer:
    """Writes dialogues from one random source. `held_out` phrasings replace the trained ones when asked for."""

    def __init__(
        self, world: World, rng: random.Random, *, held_out_phrasings: bool = False, mix: Mix | None = None
    ) -> None:
        self.world = world
        self.rng = rng
        self.mix = mix or Mix()
        self.held_out_phrasings = held_out_phrasings

    def dialogue(self, turns: int | None = None) -> list[Message]:
        """A dialogue of `turns` user turns (1 to 6, mostly few, when None)."""
        rng = self.rng
        turns = turns or rng.choices(*TURNS)[0]
        system = draw_system(rng) if rng.random() < SYSTEM_RATE else None
        messages = [Message("system", system.text)] if system else []
        thread = Thread()
        if turns > 1 and rng.random() < 0.12:
            self.add_turn(messages, *self._talk("hello"), system, thread)
            turns -= 1
        for turn in range(turns):
            if thread.body is not None and thread.topic is not None and rng.random() < 0.75:
                said = self.follow_up(thread)
            else:
                said = self.new_subject(thread, first=turn == 0 and not thread.reply)
            self.add_turn(messages, *said, system, thread)
        return messages

    def new_subject(self, thread: Thread, *, first: bool = True) -> Said:
        """A question or remark that needs no turn before it."""
        kind = self._draw(self.mix.kinds)
        if kind == "topic":
            return self.topic_question(
                self.rng.choice(self.world.atlas.known), self._draw(TOPIC_INTENTS), thread
            )
        thread.topic, thread.explainable = None, None
        if kind == "talk":
            choices = [e for e in self.world.talk.exchanges if first or not e.first_only]
            weights = [self.mix.unknown if e.name == "unknown thing" else e.weight for e in choices]
            exchange = self.rng.choices(choices, weights)[0]
            return self._talk(exchange.name)
        if kind == "sum":
            return self.sum_question()
        hero, poem = stories.draw_hero(self.rng), self.rng.random() < 0.35
        asked = self._frame(stories.POEM_PHRASINGS if poem else stories.STORY_PHRASINGS).replace(
            "{hero}", hero
        )
        body = stories.write_poem(hero, self.rng) if poem else stories.tell_story(hero, self.rng)
        return self._typed(asked), body, {}

    def topic_question(self, topic: Topic, intent: str, thread: Thread) -> Said:
        """A question that names its topic, of the given intent."""
        rng = self.rng
        thread.topic, thread.told, thread.tips, thread.explainable = topic, [], [], None
        frame = self._frame(self.world.askings.topic[intent])
        demands: Demands = {}
        if intent == "ask":
            ask = rng.choice(topic.asks)
            frame = frame.replace("{ask}", _word_ask(ask, topic.noun, topic.noun))
            body = answering.answer(topic, ask, rng)
        elif intent == "why":
            fact = rng.choice([fact for fact in topic.facts if fact.because])
            frame = frame.replace("{say}", fact.say)
            body = answering.give_reason(topic, fact, rng)
        elif intent == "compare":
            other = rng.choice([known for known in self.world.atlas.known if known is not topic])
            frame = frame.replace("{noun2}", other.noun).replace("{name2}", other.name)
            body = answering.compare(topic, other, rng)
        elif intent.startswith("several"):
            count = rng.choice((2, 3, 3, 4) if intent == "several_facts" else (2, 3))
            frame = frame.replace("{count}", rng.choice(_COUNTS[count]))
            several = answering.several_facts if intent == "several_facts" else answering.several_tips
            body = several(topic, count, rng)
            demands = {"listing": True} if rng.random() < 0.7 else {}
        else:
            body = self._simple_answer(topic, intent, frame, thread)
        return self._typed(asking.phrase(frame, topic, rng)), body, demands

    def follow_up(self, thread: Thread) -> Said:
        """Something that only makes sense after the turns before."""
        rng, topic = self.rng, thread.topic
        assert topic is not None and thread.body is not None
        offered = thread.reply.question if thread.reply else None
        if offered in ("more", "fact", "tip", "use", "example") and rng.random() < 0.35:
            if rng.random() < 0.2:
                thread.topic = None
                return (
                    self._typed(self._frame(self.world.askings.follow_up["no"]), later=True),
                    self._decline_offer(),
                    {},
                )
            intent = {"use": "uses"}.get(offered, offered)
            _, body, demands = self._follow(intent, thread)
            return self._typed(self._frame(self.world.askings.follow_up["yes"]), later=True), body, demands
        intent = self._draw(FOLLOW_UP_INTENTS)
        if intent == "why" and thread.explainable is None:
            intent = "ask"
        if intent == "another_tip" and not thread.tips:
            intent = "tip"
        if intent == "thanks":
            thread.topic = None
            return self._talk("thanks")
        if intent == "and" and rng.random() < 0.3:
            thread.topic = None
            filling = self._filling()
            frame = self._frame(self.world.askings.follow_up["and"]).replace("{noun}", filling["thing"])
            return (
                self._typed(frame, later=True),
                self.world.talk.by_name["unknown thing"].body(rng, filling),
                {},
            )
        if intent == "and":
            other = rng.choice(self.world.atlas.known)
            frame = self._frame(self.world.askings.follow_up["and"])
            thread.topic, thread.told, thread.tips, thread.explainable = other, [], [], None
            body = self._simple_answer(other, "fact", frame, thread)
            return self._typed(asking.phrase(frame, other, rng), later=True), body, {}
        return self._follow(intent, thread)

    def ask_on(self, thread: Thread) -> tuple[str, str]:
        """A follow-up about the facts of the thread's topic that does not name it: its intent and its text."""
        intents = ["ask", "ask", "more", "fact", "tip", "uses", "example"]
        intent = self.rng.choice([*intents, "why"] if thread.explainable else intents)
        return intent, self._follow(intent, thread)[0]

    def unknown_question(self) -> Said:
        """A question about something that the model does not know."""
        return self._talk("unknown thing")

    def sum_question(self) -> Said:
        """A small sum."""
        item = arithmetic.draw_sum(self.rng)
        asked = self._frame(arithmetic.PHRASINGS).replace("{sum}", arithmetic.spell(item, self.rng))
        return self._typed(asked), arithmetic.solve(item, self.rng), {}

    def _follow(self, intent: str, thread: Thread) -> Said:
        rng, topic, body = self.rng, thread.topic, thread.body
        assert topic is not None and body is not None
        frame = self._frame(self.world.askings.follow_up[intent])
        demands: Demands = {}
        if intent == "ask":
            ask = rng.choice(topic.asks)
            frame = frame.replace("{ask}", _word_ask(ask, topic.pronoun, topic.object_pronoun))
            body, thread.explainable = answering.answer(topic, ask, rng), None
        elif intent == "why" and thread.explainable is not None:
            body = answering.give_reason(topic, thread.explainable, rng)
        elif intent in ("shorter", "again", "list", "formal", "casual"):
            body, demands = say_again(body, intent)
        else:
            simple = {"more": "fact", "tip": "tips", "another_tip": "tips"}.get(intent, intent)
            body = self._simple_answer(topic, simple, "fact", thread)
        return self._typed(asking.phrase(frame, topic, rng, named=False), later=True), body, demands

    def _simple_answer(self, topic: Topic, intent: str, frame: str, thread: Thread) -> Body:
        rng = self.rng
        thread.explainable = None
        if intent == "what":
            return answering.define(topic, rng)
        if intent == "uses":
            return answering.explain_use(topic, rng)
        if intent == "example":
            return answering.give_example(topic, rng)
        if intent == "tips":
            return answering.advise(topic, rng, thread.tips)
        if intent == "statement":
            return answering.react(topic, rng)
        return answering.tell(
            topic, rng, thread.told, with_definition="fact" not in frame and rng.random() < 0.4
        )

    def _talk(self, name: str) -> Said:
        exchange = self.world.talk.by_name[name]
        filling = self._filling()
        return self._typed(fill(self._frame(exchange.asks), filling)), exchange.body(self.rng, filling), {}

    def _filling(self) -> dict[str, str]:
        rng, talk = self.rng, self.world.talk
        unknown = talk.unknown + talk.everyday if self.mix.everyday else talk.unknown
        thing = invent_name(rng) if rng.random() < 0.3 else rng.choice(unknown)
        topic = rng.choice(self.world.atlas.known)
        person = rng.choice(PEOPLE)
        return {"person": person, "thing": thing, "topic": topic.many, "bigsum": big_sum(rng)}

    def _decline_offer(self) -> Body:
        return Body(
            core=(Clause("another question is always welcome", REMARK),),
            more=(Clause("there is no hurry", REMARK, "the chat stays open"),),
            openings=_GOODBYE_TO_OFFER,
            trailers=phrases.TALK_TRAILERS,
            tip="take a short break now and then",
        )

    def add_turn(
        self,
        messages: list[Message],
        said: str,
        body: Body,
        demands: Demands,
        system: System | None,
        thread: Thread,
    ) -> None:
        """Append what the user says and the reply, and note what a follow-up may refer to."""
        style = draw(self.rng, terse=self.mix.terse)
        if system:
            style = override(style, system.demands)
        style = override(style, demands)
        shown = self._spoil(body, thread)
        reply = render(shown, style, self.rng)
        messages += [Message("user", said), Message("assistant", reply.text)]
        thread.reply, thread.body = reply, body
        note(thread, shown, reply)

    def _spoil(self, body: Body, thread: Thread) -> Body:
        """Now and then, on purpose, a wrong or a rude reply in place of the right one."""
        chance = self.rng.random()
        if chance < RUDE_RATE and not body.serious:
            return Body((Clause(self.rng.choice(_RUDE), FIXED),), trailers=phrases.TALK_TRAILERS, exact=True)
        if chance < RUDE_RATE + WRONG_RATE and thread.topic is not None:
            topic = thread.topic
            others = [t for t in self.world.atlas.known if t.plural == topic.plural and t is not topic]
            return answering.mislead(topic, self.rng.choice(others), self.rng) if others else body
        return body

    def _frame(self, phrasings: asking.Phrasings) -> str:
        return self.rng.choice(phrasings.held_out if self.held_out_phrasings else phrasings.trained)

    def _typed(self, text: str, *, later: bool = False) -> str:
        return asking.type_untidily(text, self.rng, later=later)

    def _draw(self, weights: dict[str, int]) -> str:
        return self.rng.choices(list(weights), list(weights.values()))[0]


def _word_ask(ask: Ask, subject: str, object_: str) -> str:
    return ask.ask.replace("{it}", subject).replace("{obj}", object_)
