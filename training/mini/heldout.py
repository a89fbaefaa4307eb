"""Prompts that the mini model was never trained on, prompts like those it was, and whether a reply keeps to the facts.

This is what benchmarks and evaluation import. Loads no torch; knows no model, only messages and text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from training.mini.dialogue import Message, World, Writer, load_world
from training.mini.thread import Thread

_FACTUAL = ("what", "fact", "uses", "tips", "example", "several_facts", "several_tips", "why", "ask")


@dataclass(frozen=True)
class HeldOut:
    """A prompt in a phrasing that training never shows, and the topic it asks about."""

    prompt_messages: tuple[Message, ...]
    topic_name: str
    intent: str


@cache
def world() -> World:
    """The corpus' topics and small talk, read once."""
    return load_world()


def heldout_prompts(n: int, seed: int) -> list[HeldOut]:
    """`n` single questions about known topics, each topic as often as any other, in phrasings never trained on.

    Phrasings are held out, not topics: the model should know every answer.
    """
    rng = random.Random(f"held out {seed}")
    writer = Writer(world(), rng, held_out_phrasings=True)
    prompts: list[HeldOut] = []
    while len(prompts) < n:
        for topic in rng.sample(world().atlas.known, len(world().atlas.known)):
            intent = rng.choice(_FACTUAL)
            said, _, _ = writer.topic_question(topic, intent, Thread())
            prompts.append(HeldOut((Message("user", said),), topic.name, intent))
    return prompts[:n]


def unknown_topic_prompts(n: int, seed: int) -> list[HeldOut]:
    """`n` questions about the topics that training leaves out; the honest answer is not to know."""
    rng = random.Random(f"unknown {seed}")
    writer = Writer(world(), rng)
    prompts = []
    for _ in range(n):
        topic = rng.choice(world().atlas.held_out)
        intent = rng.choice(("what", "fact", "uses", "tips", "example"))
        said, _, _ = writer.topic_question(topic, intent, Thread())
        prompts.append(HeldOut((Message("user", said),), topic.name, intent))
    return prompts


def follow_up_prompts(n: int, seed: int) -> list[HeldOut]:
    """`n` two-turn dialogues whose second question refers to the topic without naming it, in held-out phrasings."""
    rng = random.Random(f"follow-ups {seed}")
    writer = Writer(world(), rng, held_out_phrasings=True)
    prompts: list[HeldOut] = []
    while len(prompts) < n:
        topic, intent, thread = (
            rng.choice(world().atlas.known),
            rng.choice(("what", "fact", "ask", "tips")),
            Thread(),
        )
        messages: list[Message] = []
        writer.add_turn(messages, *writer.topic_question(topic, intent, thread), None, thread)
        if not facts_kept(messages[:1], messages[1].content):
            continue
        later, said = writer.ask_on(thread)
        prompts.append(HeldOut((*messages, Message("user", said)), topic.name, later))
    return prompts


def training_prompts(n: int, seed: int) -> list[tuple[Message, ...]]:
    """`n` prompts of the kind people type, for simulated chats: all intents, follow-ups with the turns before them."""
    rng = random.Random(f"simulated {seed}")
    writer = Writer(world(), rng)
    prompts = []
    for _ in range(n):
        dialogue = writer.dialogue()
        ends = [place for place, message in enumerate(dialogue) if message.role == "user"]
        prompts.append(tuple(dialogue[: rng.choice(ends) + 1]))
    return prompts


def facts_kept(prompt: Sequence[Message] | str, reply: str) -> bool | None:
    """Whether `reply` states a true fact of the topic that the prompt asks about and no other topic's fact.

    The topic is the one named last in the user's messages. None where no known topic is named. A prompt that
    names two topics (a comparison) needs a true fact of either.
    """
    atlas = world().atlas
    texts = [prompt] if isinstance(prompt, str) else [m.content for m in prompt if m.role == "user"]
    for text in reversed(texts):
        topics = [topic for topic in atlas.mentioned(text) if not topic.held_out]
        if len(topics) > 1:
            return any(topic.claimed_in(reply) for topic in topics)
        if topics:
            return atlas.states_true_fact(topics[0], reply)
    return None


def states_true_fact(topic_name: str, reply: str) -> bool:
    """Whether `reply` states a true fact of the named topic and none of another in its place. KeyError if unknown."""
    atlas = world().atlas
    return atlas.states_true_fact(atlas.by_name[topic_name], reply)
