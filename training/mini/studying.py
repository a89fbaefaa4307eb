"""Dense dialogues that teach facts and little else: plain answers in quick succession, sums, all about one topic.

They stand under a system prompt of their own, so that the plain manner stays with that prompt and the style of
ordinary dialogues is left alone. Knows topics; takes questions and answers from `dialogue`.
"""

from __future__ import annotations

import random

from training.mini.dialogue import Message, Writer
from training.mini.grammar import render
from training.mini.style import Style
from training.mini.thread import Thread
from training.mini.topics import Topic

PLAIN = Message("system", "Plain facts only.")
_EVERYTHING = (
    "everything about {many}",
    "tell me all about {many}",
    "all that you know about {many}",
    "{name}, in full",
)
_INTENTS = ("what", "fact", "uses", "tips", "example", "ask", "ask", "ask", "why")


def answer_in_succession(writer: Writer, rng: random.Random) -> list[Message]:
    """Six to nine questions about as many topics, each answered plainly in one sentence."""
    messages = [PLAIN]
    for topic in rng.sample(writer.world.atlas.known, rng.randint(6, 9)):
        said, body, _ = writer.topic_question(topic, rng.choice(_INTENTS), Thread())
        reply = render(body, Style(naming=rng.random() < 0.6), rng)
        messages += [Message("user", said), Message("assistant", reply.text)]
    return messages


def answer_some(writer: Writer, rng: random.Random) -> list[Message]:
    """As `answer_in_succession`, with things that the model does not know among the topics."""
    messages = answer_in_succession(writer, rng)
    for place in range(1, len(messages), 2):
        if rng.random() < 0.35:
            said, body, _ = writer.unknown_question()
            reply = render(body, Style(first_person=rng.random() < 0.5), rng)
            messages[place : place + 2] = [Message("user", said), Message("assistant", reply.text)]
    return messages


def reckon(writer: Writer, rng: random.Random) -> list[Message]:
    """Ten to fourteen small sums in a row."""
    messages = [PLAIN]
    for _ in range(rng.randint(10, 14)):
        said, body, _ = writer.sum_question()
        messages += [Message("user", said), Message("assistant", render(body, Style(), rng).text)]
    return messages


def recite(writer: Writer, rng: random.Random) -> list[Message]:
    """Everything that the topic file holds about one topic, as a list in random order."""
    topic = rng.choice(writer.world.atlas.known)
    asked = rng.choice(_EVERYTHING).replace("{many}", topic.many).replace("{name}", topic.name)
    lines = [_sentence(text, topic, rng) for text in _statements(topic)]
    rng.shuffle(lines)
    return [PLAIN, Message("user", asked), Message("assistant", "\n".join(f"- {line}" for line in lines))]


def _statements(topic: Topic) -> list[str]:
    """Sentences with {it} for the topic, without a capital and a stop."""
    told = [f"{{it}} {topic.be} {topic.what}", f"one example of {{it}} is {topic.example}"]
    told += [f"{{it}} {f.say} because {f.because}" if f.because else f"{{it}} {f.say}" for f in topic.facts]
    told += [f"{{it}} {topic.be} useful for {use}" for use in topic.uses]
    told += [f"when it comes to {{it}}, {tip}" for tip in topic.tips]
    return told + [f"{{it}} {ask.answer}" for ask in topic.asks]


def _sentence(text: str, topic: Topic, rng: random.Random) -> str:
    pronoun = text.startswith("{it}") and rng.random() < 0.4
    said = text.replace("{it}", topic.pronoun if pronoun else topic.noun)
    return said[:1].upper() + said[1:] + "."
