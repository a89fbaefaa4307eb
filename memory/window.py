"""What the policy sees of a long chat: the system prompt and as many of the newest turns as fit a budget.

A turn is a user message with the replies that follow it, and is kept whole or not at all. What is chosen is what
langchain-core's `trim_messages` chooses (tests hold it to that), with a few countings instead of one for every
message, and from a past of which only the end is read. This module counts with the counter it is given, cuts no text,
summarises nothing and reads no database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from memory.past import Past, Said, joined_said
from memory.schema import Message

Counter = Callable[[Sequence[Message]], int]
"""Tokens that messages take as a prompt. It is asked only about messages in their order, the system message first, so
it may add what a chat template adds; it must not fall when messages are put in front."""

_CHARACTERS_PER_MESSAGE = 16
"""What a chat template writes around a message, in characters of text; only the first guess depends on it."""
_TOKENS_PER_MESSAGE = 24
"""How much of the past is read at first: too little is read on, too much was read in vain."""


class WindowError(ValueError):
    """Not even the system prompt and the last user message fit the budget, or there is no user message."""


@dataclass(frozen=True)
class Window:
    """The newest whole turns that fit: the messages, and the place on the path of the first of them (0 where no turn is
    left out, also when the path begins with a reply)."""

    said: tuple[Said, ...]
    first: int
    tokens: int


def fit(messages: Sequence[Message], *, budget: int, count_tokens: Counter) -> tuple[Message, ...]:
    """The prompt for the next reply: at most `budget` tokens, ending on the last user message.

    A leading system message is always kept; the rest is the longest run of whole turns that fits. Replies
    before the first user message and after the last one are left out.

    Raises `WindowError` when the system prompt and the last user message do not fit, or there is none.
    """
    system = tuple(message for message in messages[:1] if message.role == "system")
    said = [Said("", message, place) for place, message in enumerate(messages[len(system) :])]
    starts = [one.depth for one in said if one.message.role == "user"]
    said = said[: starts[-1] + 1] if starts else []
    found = _longest_run(system, said, starts, budget=budget, count_tokens=count_tokens)
    if found is None:
        raise too_long(system, said, budget=budget, count_tokens=count_tokens)
    return (*system, *(one.message for one in said[found[0] :]))


def newest_turns(
    system: Sequence[Message],
    past: Past,
    *,
    budget: int,
    count_tokens: Counter,
    most_turns: int | None = None,
    characters_per_token: float = 4.0,
) -> Window:
    """The newest whole turns of `past`, at most `most_turns` of them, that fit `budget` together with `system`.

    Neighbours of the same role are joined. Reads as much of the past's end as it needs to be sure.
    `characters_per_token` is that of a prompt like it (`characters_of` by its tokens), for a better first guess.
    Raises `WindowError` as `fit` does.
    """
    reach = max(16, budget // _TOKENS_PER_MESSAGE)
    while True:
        begin = max(0, past.length - reach)
        said = joined_said(past.stretch(begin, past.length))
        starts = [place for place, one in enumerate(said) if one.message.role == "user"]
        said = said[: starts[-1] + 1] if starts else []
        if begin > 0:  # What was read may begin inside a message that is joined with the one before it.
            starts = [place for place in starts if place > 0]
        enough = begin == 0
        if most_turns is not None and len(starts) >= most_turns:
            starts, enough = starts[len(starts) - most_turns :], True
        found = _longest_run(
            system, said, starts, budget=budget, count_tokens=count_tokens, per_token=characters_per_token
        )
        if starts and found is None:
            raise too_long(system, said, budget=budget, count_tokens=count_tokens)
        if found is not None and (enough or found[0] > starts[0]):
            kept = said[found[0] :]
            everything = begin == 0 and all(one.message.role != "user" for one in said[: found[0]])
            return Window(tuple(kept), 0 if everything else kept[0].depth, found[1])
        if begin == 0:
            raise too_long(system, said, budget=budget, count_tokens=count_tokens)
        reach *= 2


def characters_of(messages: Iterable[Message]) -> int:
    """How long messages are, with what a template writes around each of them."""
    return sum(len(message.content) + _CHARACTERS_PER_MESSAGE for message in messages)


def too_long(
    system: Sequence[Message], said: Sequence[Said], *, budget: int, count_tokens: Counter
) -> WindowError:
    """The error for a person: what is too long, by how much, and what to do."""
    last = [one.message for one in said if one.message.role == "user"][-1:]
    if not last:
        return WindowError("There is no user message; expected one to reply to. Send a message first.")
    tokens = count_tokens([*system, *last])
    what, remedy = (
        ("The system prompt and the message are", "one of them") if system else ("The message is", "it")
    )
    return WindowError(
        f"{what} {tokens} tokens long; the model has room for {budget}. Shorten {remedy}, or choose a model "
        "with a longer context."
    )


def _longest_run(
    system: Sequence[Message],
    said: Sequence[Said],
    starts: Sequence[int],
    *,
    budget: int,
    count_tokens: Counter,
    per_token: float = 4.0,
) -> tuple[int, int] | None:
    """The first of `starts` from which all that was said fits, and the tokens it takes; None where none fits.

    The count from a later start is no higher, so two starts that lie side by side, one fitting and one not, settle it.
    They are looked for where the characters suggest, which takes two or three countings instead of a logarithm.
    """
    lengths = [characters_of([one.message]) for one in said]
    behind = list(accumulate(reversed(lengths)))[::-1]
    fitting, too_far = len(starts), -1
    kept: tuple[int, int] | None = None
    opening = characters_of(system)
    tries = 0
    while fitting - too_far > 1:
        room = budget * per_token - opening
        wanted = next((at for at, start in enumerate(starts) if behind[start] <= room), len(starts) - 1)
        if tries >= 4:
            wanted = (fitting + too_far) // 2
        at = min(max(wanted, too_far + 1), fitting - 1)
        tokens = count_tokens([*system, *(one.message for one in said[starts[at] :])])
        if tokens <= budget:
            fitting, kept = at, (starts[at], tokens)
        else:
            too_far = at
        per_token = (behind[starts[at]] + opening) / max(1, tokens)
        tries += 1
    return kept
