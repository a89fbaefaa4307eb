"""A simulated person in a studio: says what people say, judges replies (pairs, thumbs, corrections), asks held-out
questions.

Drives the studio's public parts only, the same that the page calls. It knows no training and measures nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count as counter

from benchmarks.editing import edit_of
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
    return _judged(studio, lambda exchange: judge(studio, rater, exchange), comparisons, seed).count("tie")


def collect_thumbs(studio: Studio, rater: Rater, *, thumbs: int, seed: int) -> int:
    """Chat until so many replies have a thumb; how many of those point down."""
    return _judged(studio, lambda exchange: rate(studio, rater, exchange), thumbs, seed).count("down")


def collect_corrections(studio: Studio, rater: Rater, *, replies: int, seed: int) -> int:
    """Chat until so many replies are liked, or corrected where they are not; how many were corrected."""
    return _judged(studio, lambda exchange: correct(studio, rater, exchange), replies, seed).count(
        "corrected"
    )


def _judged(studio: Studio, answer: Callable[[Exchange], str | None], count: int, seed: int) -> list[str]:
    """Chat until `answer` has judged `count` exchanges: what it said of each."""
    labels: list[str] = []
    seeds = counter(seed, 1_000)
    while len(labels) < count:
        labels += _talk(studio, answer, scripts(count - len(labels), seed=next(seeds)))
    return labels


def _talk(
    studio: Studio, answer: Callable[[Exchange], str | None], plans: list[tuple[str, list[str]]]
) -> list[str]:
    """Hold these conversations, several at a time, and judge every exchange."""
    labels: list[str] = []
    talking: list[tuple[str, list[str]]] = []
    while plans or talking:
        while plans and len(talking) < _CHATS:
            system, said = plans.pop(0)
            talking.append((studio.conversations.create(PERSON, system_prompt=system).id, said))
        exchanges = [studio.chat.send(PERSON, conversation, said.pop(0)) for conversation, said in talking]
        labels += [label for exchange in exchanges if (label := answer(exchange))]
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


def rate(studio: Studio, rater: Rater, exchange: Exchange) -> str | None:
    """Wait for the reply and give it a thumb; None where no reply came."""
    reply = _reply_of(exchange)
    if not reply:
        return None
    value = rater.thumb(exchange.prompt[-1].content, reply)
    studio.feedback.rate(exchange.first.turn_id, value, rater.name, owner=PERSON)
    return "up" if value > 0 else "down"


def correct(studio: Studio, rater: Rater, exchange: Exchange) -> str | None:
    """Wait for the reply, then like it, or write it as it should have been; None where no reply came, or where the
    rater's edit does not help."""
    reply, asked = _reply_of(exchange), exchange.prompt[-1].content
    if not reply:
        return None
    if rater.satisfied(asked, reply):
        studio.feedback.rate(exchange.first.turn_id, 1, rater.name, owner=PERSON)
        return "liked"
    edited = edit_of(rater)(reply)
    if not edited.strip() or not rater.satisfied(asked, edited):
        return None
    studio.feedback.correct(exchange.first.turn_id, edited, rater.name, owner=PERSON)
    return "corrected"


def _reply_of(exchange: Exchange) -> str:
    """The text of a single reply once it has ended well; empty otherwise."""
    ended = exchange.wait(WAIT_SECONDS) and exchange.done and not exchange.error
    return exchange.first.stream.text.strip() if ended else ""


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
