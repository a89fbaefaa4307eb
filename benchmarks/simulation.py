"""A simulated person in a studio: says what people say, votes on both replies of a pair, asks held-out questions.

Drives the studio's public parts only, the same that the page calls. It knows no training and measures nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from benchmarks.raters import Rater
from memory.schema import Label
from studio.build import Studio
from studio.exchange import Exchange
from studio.policy.interface import Sampling
from training.mini.heldout import HeldOut, training_prompts

PERSON = "benchmark"
WAIT_SECONDS = 1_800.0
_CHATS = 8
"""Conversations held at the same time."""


def collect(studio: Studio, rater: Rater, *, comparisons: int, seed: int) -> int:
    """Chat until `comparisons` votes are cast; how many of them were ties."""
    labels: list[Label] = []
    seeds = count(seed, 1_000)
    while len(labels) < comparisons:
        labels += _talk(studio, rater, scripts(comparisons - len(labels), seed=next(seeds)))
    return labels.count("tie")


def _talk(studio: Studio, rater: Rater, plans: list[tuple[str, list[str]]]) -> list[Label]:
    """Hold these conversations, several at a time, and vote on every pair."""
    labels: list[Label] = []
    talking: list[tuple[str, list[str]]] = []
    while plans or talking:
        while plans and len(talking) < _CHATS:
            system, said = plans.pop(0)
            talking.append((studio.conversations.create(PERSON, system_prompt=system).id, said))
        exchanges = [studio.chat.send(PERSON, conversation, said.pop(0)) for conversation, said in talking]
        labels += [label for exchange in exchanges if (label := judge(studio, rater, exchange))]
        talking = [(conversation, said) for conversation, said in talking if said]
    return labels


def scripts(messages: int, *, seed: int) -> list[tuple[str, list[str]]]:
    """What simulated people say: (system prompt, messages) of each conversation, `messages` messages in all."""
    plans: list[tuple[str, list[str]]] = []
    left = messages
    for dialogue in training_prompts(messages, seed):
        system = "\n".join(message.content for message in dialogue if message.role == "system")
        said = [message.content for message in dialogue if message.role == "user"][:left]
        left -= len(said)
        if said:
            plans.append((system, said))
    return plans


def judge(studio: Studio, rater: Rater, exchange: Exchange) -> Label | None:
    """Wait for both replies and vote; None where they are the same. Raises `RuntimeError` when no pair came."""
    asked = exchange.prompt[-1].content
    ended = exchange.wait(WAIT_SECONDS)
    reply_A, reply_B = (exchange.side(letter).stream.text for letter in ("A", "B"))
    if ended and not exchange.asks and reply_A == reply_B:
        return None
    if not exchange.asks:
        raise RuntimeError(f"No pair to judge came for {asked!r}: {exchange.notice or exchange.phase}.")
    label = rater.vote(asked, reply_A, reply_B)
    studio.chat.vote(exchange.id, label, rater.name, owner=PERSON)
    return label


def first_words(studio: Studio) -> float:
    """Ask something in a new conversation; the time at which the first words of the reply came."""
    conversation = studio.conversations.create(PERSON)
    exchange = studio.chat.send(PERSON, conversation.id, "What is tea?")
    next(iter(exchange.first.stream), "")
    came = time.monotonic()
    exchange.wait(WAIT_SECONDS)
    return came


def answer(studio: Studio, asked: Sequence[HeldOut], *, version: str, seed: int) -> list[str]:
    """One reply of `version` to each prompt through the chat's policy, at the chat's sampling settings."""
    settings = studio.settings

    def reply(number: int) -> str:
        sampling = Sampling(
            settings.temperature, settings.top_p, settings.max_new_tokens, seed=1_000 * seed + number
        )
        stream = studio.policy.start(asked[number].prompt_messages, version=version, sampling=sampling)
        stream.wait(WAIT_SECONDS)
        return stream.text

    with ThreadPoolExecutor(settings.max_rows) as chats:
        return list(chats.map(reply, range(len(asked))))
