"""How a prompt is put together: what a strategy keeps of the past, what it adds, and never a token over the budget.

Whatever is added to the turns (facts, a summary, recalled passages) stands in the one system message, below the
conversation's own system prompt, so every chat template can express it and every strategy's prompt has the same shape.
What comes out is the whole prompt: it is what the policy sees and what is stored with the turn. This module knows no
particular strategy, no database and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from memory.past import Past
from memory.schema import Message
from memory.window import Counter, Window, WindowError, characters_of, newest_turns

Kind = Literal["system", "facts", "summary", "recalled", "turns"]
TOKENS_BETWEEN = 4
"""Kept free for where a part meets the one before it."""
ADDITIONS_SHARE = 0.35
"""Most of the budget that summary and recalled passages may take; the newest turns say more about what is meant."""
WORTH_FILLING = 0.1
"""Of the budget: when the additions leave so much of their share free, more turns take it."""
FACTS_HEADING = "What you know about the person:"


@dataclass(frozen=True)
class Request:
    """What a prompt is asked for: at most `budget` tokens as `count_tokens` counts them, for the end of `past`.

    `system` is the conversation's system prompt, `facts` what the person asked to be remembered, newest last;
    `characters_per_token` that of an earlier prompt (see `density`), which saves a counting.
    """

    system: str
    past: Past
    budget: int
    count_tokens: Counter
    facts: tuple[str, ...] = ()
    characters_per_token: float = 4.0


@dataclass(frozen=True)
class Part:
    """A part of a prompt: its kind, its text, and the ids of the messages or facts that it is made of."""

    kind: Kind
    text: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A prompt, the parts it is made of in their order, and where on the path its turns begin."""

    messages: tuple[Message, ...]
    parts: tuple[Part, ...]
    first: int
    tokens: int


Measure = Callable[[str], int]
"""Tokens that a text takes inside the system message, about."""


class Addition(Protocol):
    """Something that speaks for what a prompt has no room for."""

    def add(self, request: Request, *, before: int, room: int, measure: Measure) -> Part | None:
        """At most `room` tokens about the messages before the place `before` of the path, or None.

        Must be the same for the same request, and quick: a person waits for it.
        """


class Strategy(Protocol):
    """A way of reminding the policy of a conversation."""

    @property
    def name(self) -> str:
        """The word by which a conversation chooses it."""

    def prepare(self, request: Request) -> Prepared:
        """The prompt. Raises `memory.window.WindowError` where none is within the budget."""


def prepare(
    request: Request,
    *,
    most_turns: int | None = None,
    additions: Sequence[Addition] = (),
    share: float = ADDITIONS_SHARE,
) -> Prepared:
    """The newest turns that fit, and `additions` about what came before them.

    While everything fits, nothing is added. Where the additions leave no room for the last message, they go, and the
    facts after them, the oldest first. Raises `WindowError` where the system prompt and the last message do not fit.
    """
    opening, window = _room_for_facts(request, most_turns=most_turns)
    if window.first == 0 or not additions:
        return _prepared(opening, window)
    reserved = int(request.budget * share)
    try:
        smaller = _window(request, opening, budget=request.budget - reserved, most_turns=most_turns)
    except WindowError:
        return _prepared(opening, window)
    made = _additions(request, smaller, additions, room=reserved)
    while made:
        held = _tokens(request, [*opening, *made], smaller)
        if held <= request.budget:
            turns = Window(smaller.said, smaller.first, held)
            if request.budget - held > WORTH_FILLING * request.budget:
                turns = _window(request, [*opening, *made], budget=request.budget, most_turns=most_turns)
            return _prepared([*opening, *made], turns)
        made.pop()
    return _prepared(opening, window)


def left_out_before(request: Request, *, share: float = ADDITIONS_SHARE) -> int:
    """The place on the path before which additions speak for what was said: 0 where everything fits, and where the
    last message leaves them no room.
    """
    opening, window = _room_for_facts(request, most_turns=None)
    if window.first == 0:
        return 0
    try:
        smaller = request.budget - int(request.budget * share)
        return _window(request, opening, budget=smaller, most_turns=None).first
    except WindowError:
        return 0


def density(prepared: Prepared) -> float:
    """Characters to a token of a prompt that was made, for the next one."""
    return characters_of(prepared.messages) / max(1, prepared.tokens)


def told(parts: Sequence[Part]) -> tuple[Message, ...]:
    """The system message that the parts before the turns make; none when they are empty."""
    text = "\n\n".join(part.text for part in parts if part.text)
    return (Message("system", text),) if text else ()


def _opening(request: Request, facts: Sequence[str]) -> list[Part]:
    parts = [Part("system", request.system)] if request.system else []
    if facts:
        lines = [f"- {' '.join(fact.split())}" for fact in facts]
        parts.append(Part("facts", "\n".join([FACTS_HEADING, *lines]), tuple(facts)))
    return parts


def _room_for_facts(request: Request, *, most_turns: int | None) -> tuple[list[Part], Window]:
    """System prompt and as many of the newest facts as leave room for the last message, and the turns beside them."""
    facts = request.facts
    while True:
        opening = _opening(request, facts)
        try:
            return opening, _window(request, opening, budget=request.budget, most_turns=most_turns)
        except WindowError:
            if not facts:
                raise
            facts = facts[1:]


def _window(request: Request, parts: Sequence[Part], *, budget: int, most_turns: int | None) -> Window:
    return newest_turns(
        told(parts),
        request.past,
        budget=budget,
        count_tokens=request.count_tokens,
        most_turns=most_turns,
        characters_per_token=request.characters_per_token,
    )


def _additions(request: Request, window: Window, additions: Sequence[Addition], *, room: int) -> list[Part]:
    """What the additions say, each within what the ones before it have left of `room`.

    A text is measured by itself, which is off by a token or two where it meets its neighbours; some room is kept for
    that, and `prepare` counts the whole prompt in the end.
    """
    nothing = request.count_tokens([Message("user", "")])

    def measure(text: str) -> int:
        return request.count_tokens([Message("user", text)]) - nothing

    made: list[Part] = []
    for addition in additions:
        room -= TOKENS_BETWEEN
        part = addition.add(request, before=window.first, room=room, measure=measure) if room > 0 else None
        if part is not None and part.text:
            made.append(part)
            room -= measure(part.text)
    return made


def _tokens(request: Request, parts: Sequence[Part], window: Window) -> int:
    return request.count_tokens([*told(parts), *(one.message for one in window.said)])


def _prepared(parts: Sequence[Part], window: Window) -> Prepared:
    said = window.said
    turns = Part("turns", "\n".join(one.message.content for one in said), tuple(one.id for one in said))
    messages = (*told(parts), *(one.message for one in said))
    return Prepared(messages, (*parts, turns), window.first, window.tokens)
