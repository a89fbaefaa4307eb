"""What to say about a topic: for every intent a `Body` made of the topic's own facts, uses, tips and answers.

Knows topics and intents; knows nothing of style (the grammar's), of how the question was worded, or of who asked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from training.mini.grammar import ADVICE, DEFINITION, STATEMENT, Body, Clause, Subject
from training.mini.topics import Ask, Fact, Topic

_FACT_INTROS = (
    "here are some facts about {noun}:",
    "some facts about {noun}:",
    "here are a few facts:",
    "a few facts:",
)
_TIP_INTROS = ("here are some tips:", "a few tips:", "some tips about {noun}:", "here is some advice:")
_QUESTIONS = ("more", "fact", "tip", "use", "example", "open", "open", "topic")
Item = TypeVar("Item")
_NICE = ("that is nice to hear", "oh, nice", "good to hear", "that is a nice subject")


def subject(topic: Topic) -> Subject:
    return Subject(topic.noun, topic.plural)


def define(topic: Topic, rng: random.Random) -> Body:
    facts = [fact_clause(fact) for fact in shuffled(topic.facts, rng)]
    more = [*facts[:2], use_clause(topic, rng), *facts[2:]]
    return _body(topic, (definition_clause(topic),), more, rng, intros=("here is an answer:", *_FACT_INTROS))


def tell(
    topic: Topic, rng: random.Random, used: Sequence[Fact] = (), *, with_definition: bool = False
) -> Body:
    """A fact that has not been told yet (any, once all have been), followed by others."""
    fresh = [fact for fact in shuffled(topic.facts, rng) if fact not in used]
    old = [fact for fact in shuffled(topic.facts, rng) if fact in used]
    facts = [fact_clause(fact) for fact in (fresh or old)]
    if with_definition:
        return _body(topic, (definition_clause(topic),), facts, rng, intros=_FACT_INTROS)
    return _body(topic, (facts[0],), [*facts[1:], use_clause(topic, rng)], rng, intros=_FACT_INTROS)


def several_facts(topic: Topic, count: int, rng: random.Random) -> Body:
    facts = [fact_clause(fact) for fact in shuffled(topic.facts, rng)[:count]]
    return _body(topic, facts, (), rng, intros=_FACT_INTROS, exact=True)


def several_tips(topic: Topic, count: int, rng: random.Random) -> Body:
    tips = [Clause(tip, ADVICE) for tip in shuffled(topic.tips, rng)[:count]]
    return _body(topic, tips, (), rng, intros=_TIP_INTROS, exact=True, tip=False)


def explain_use(topic: Topic, rng: random.Random) -> Body:
    uses = shuffled(topic.uses, rng)
    core = Clause("{it} {be} " + f"{rng.choice(('useful', 'good', 'useful'))} for {uses[0]}")
    others = [Clause(f"another use is {uses[1]}"), Clause("{it} {be} good for " + uses[2] + " too")]
    more = [*others, *(fact_clause(f) for f in shuffled(topic.facts, rng)[:3])]
    return _body(
        topic, (core,), more, rng, intros=("here are some uses:", "a few points:", "some uses of {noun}:")
    )


def advise(topic: Topic, rng: random.Random, used: Sequence[str] = ()) -> Body:
    fresh = [tip for tip in shuffled(topic.tips, rng) if tip not in used] or shuffled(topic.tips, rng)
    more = [
        *(Clause(tip, ADVICE) for tip in fresh[1:]),
        *(fact_clause(f) for f in shuffled(topic.facts, rng)[:2]),
    ]
    return _body(topic, (Clause(fresh[0], ADVICE),), more, rng, intros=_TIP_INTROS, tip=False)


def give_example(topic: Topic, rng: random.Random) -> Body:
    frame = rng.choice(("one example{of} is {e}", "a good example{of} is {e}", "an example{of} is {e}"))
    more = [fact_clause(fact) for fact in shuffled(topic.facts, rng)[:4]]
    return _body(
        topic, (Clause(frame.replace("{e}", topic.example)),), more, rng, intros=_FACT_INTROS, example=False
    )


def answer(topic: Topic, ask: Ask, rng: random.Random) -> Body:
    more = [fact_clause(fact) for fact in shuffled(topic.facts, rng)[:4]]
    return _body(
        topic, (Clause("{it} " + ask.answer),), more, rng, intros=("here is the answer:", "a short answer:")
    )


def give_reason(topic: Topic, fact: Fact, rng: random.Random) -> Body:
    """Why a fact holds; the fact must have a reason."""
    frame = rng.choice(
        ("the reason is that {b}", "{it} {say} because {b}", "it is because {b}", "{it} {say} because {b}")
    )
    core = Clause(frame.replace("{say}", fact.say).replace("{b}", str(fact.because)))
    others = [fact_clause(other) for other in shuffled(topic.facts, rng) if other != fact]
    return _body(topic, (core,), others, rng, intros=("here is the reason:", "a few points:"))


def compare(first: Topic, second: Topic, rng: random.Random) -> Body:
    turn = rng.choice(("", "", ", on the other hand,"))
    core = (
        Clause(f"{first.noun} {first.be} {first.what}", DEFINITION),
        Clause(f"{second.noun}{turn} {second.be} {second.what}", DEFINITION),
    )
    facts = [(topic, rng.choice(topic.facts)) for topic in (first, second)]
    more = [Clause(f"{topic.noun} {fact.say}", STATEMENT, fact.because) for topic, fact in facts]
    return Body(core, tuple(more), intros=("here is the difference:", "side by side:", "the two compared:"))


def react(topic: Topic, rng: random.Random) -> Body:
    """To somebody who has just said something about the topic: a kind word and a fact."""
    facts = [fact_clause(fact) for fact in shuffled(topic.facts, rng)]
    return _body(topic, (facts[0],), facts[1:], rng, intros=_FACT_INTROS, openings=_NICE)


def mislead(topic: Topic, other: Topic, rng: random.Random) -> Body:
    """A wrong reply: a fact of another topic of the same number told as this topic's."""
    return _body(topic, (Clause("{it} " + rng.choice(other.facts).say),), (), rng, exact=True)


def definition_clause(topic: Topic) -> Clause:
    return Clause("{it} {be} " + topic.what, DEFINITION)


def fact_clause(fact: Fact) -> Clause:
    return Clause("{it} " + fact.say, STATEMENT, fact.because)


def use_clause(topic: Topic, rng: random.Random) -> Clause:
    return Clause("{it} {be} useful for " + rng.choice(topic.uses))


def shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    return rng.sample(list(items), len(items))


def _body(
    topic: Topic,
    core: Sequence[Clause],
    more: Sequence[Clause],
    rng: random.Random,
    *,
    intros: tuple[str, ...] = ("a few points:",),
    openings: tuple[str, ...] = (),
    exact: bool = False,
    example: bool = True,
    tip: bool = True,
) -> Body:
    return Body(
        core=tuple(core),
        more=tuple(more),
        subject=subject(topic),
        intros=intros,
        openings=openings,
        example=topic.example if example else None,
        tip=rng.choice(topic.tips) if tip else None,
        questions=_QUESTIONS,
        exact=exact,
    )
