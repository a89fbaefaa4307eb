"""What the policy sees of a long chat: the system prompt and as many of the newest turns as fit a budget.

A turn is a user message with the replies that follow it, and is kept whole or not at all. The choosing is
langchain-core's `trim_messages`. This module counts with the counter it is given, cuts no text, summarises
nothing and reads no database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_core.messages import BaseMessage, trim_messages

from memory.langchain_messages import to_langchain
from memory.schema import Message


class WindowError(ValueError):
    """Not even the system prompt and the last user message fit the budget, or there is no user message."""


def fit(
    messages: Sequence[Message], *, budget: int, count_tokens: Callable[[Sequence[Message]], int]
) -> tuple[Message, ...]:
    """The prompt for the next reply: at most `budget` tokens, ending on the last user message.

    A leading system message is always kept; the rest is the longest run of whole turns that fits. Replies
    before the first user message and after the last one are left out. `count_tokens` is only asked about
    messages in their order, the system message first, so it may add what a chat template adds; it must not
    fall when messages are put in front.

    Raises `WindowError` when the system prompt and the last user message do not fit, or there is none.
    """
    system = [message for message in messages[:1] if message.role == "system"]
    said = messages[len(system) :]

    def count(newest_first: list[BaseMessage]) -> int:
        # trim_messages grows the prompt from its end and hands it over reversed. Counting it together with
        # the system message stays exact for templates that cost something per prompt.
        return count_tokens([*system, *(said[_place(message)] for message in reversed(newest_first))])

    trimmed = trim_messages(
        [to_langchain(message, message_id=str(place)) for place, message in enumerate(said)],
        max_tokens=budget,
        token_counter=count,
        strategy="last",
        start_on="human",
        end_on="human",
    )
    if not trimmed:
        raise _too_long(system, said, budget=budget, count_tokens=count_tokens)
    return (*system, *(said[_place(message)] for message in trimmed))


def _place(message: BaseMessage) -> int:
    return int(message.id or 0)


def _too_long(
    system: Sequence[Message],
    said: Sequence[Message],
    *,
    budget: int,
    count_tokens: Callable[[Sequence[Message]], int],
) -> WindowError:
    last = [message for message in said if message.role == "user"][-1:]
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
