"""The window: never over budget, system kept, turns whole; held against a slow and obvious implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.schema import Message
from memory.window import WindowError, fit

Counter = Callable[[Sequence[Message]], int]


def words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def templated(messages: Sequence[Message]) -> int:
    """Like a chat template: something per message, and something per prompt for the opening of the reply."""
    return sum(4 + len(message.content) for message in messages) + 5


def in_order_only(messages: Sequence[Message]) -> int:
    """Like a template that refuses a prompt out of order."""
    roles = [message.role for message in messages]
    assert "system" not in roles[1:]
    return templated(messages)


def slow_fit(messages: Sequence[Message], budget: int, count: Counter) -> tuple[Message, ...] | None:
    """Every way to begin, longest first: the first that begins and ends on the user and fits."""
    head = list(messages[:1]) if messages and messages[0].role == "system" else []
    rest = list(messages[len(head) :])
    while rest and rest[-1].role != "user":
        rest.pop()
    for start in range(len(rest)):
        if rest[start].role == "user" and count([*head, *rest[start:]]) <= budget:
            return (*head, *rest[start:])
    return None


contents = st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=6).map(" ".join)
chats = st.builds(
    lambda system, said: [*system, *said],
    st.lists(st.builds(Message, role=st.just("system"), content=contents), max_size=1),
    st.lists(st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=contents), max_size=14),
)
counters = st.sampled_from([words, templated, in_order_only, len])


@settings(derandomize=True, deadline=None)
@given(chats, st.integers(0, 120), counters)
def test_the_window_is_what_the_slow_way_finds(messages: list[Message], budget: int, count: Counter) -> None:
    expected = slow_fit(messages, budget, count)
    if expected is None:
        with pytest.raises(WindowError):
            fit(messages, budget=budget, count_tokens=count)
        return
    found = fit(messages, budget=budget, count_tokens=count)
    assert found == expected
    assert count(found) <= budget
    assert found[-1].role == "user"
    assert fit(found, budget=budget, count_tokens=count) == found


@settings(derandomize=True, deadline=None)
@given(chats, st.integers(0, 120), counters)
def test_the_window_keeps_the_system_prompt_the_order_and_whole_turns(
    messages: list[Message], budget: int, count: Counter
) -> None:
    try:
        found = list(fit(messages, budget=budget, count_tokens=count))
    except WindowError:
        return
    if messages[0].role == "system":
        assert found[0] is messages[0]
        found, messages = found[1:], messages[1:]
    last = max(place for place, message in enumerate(messages) if message.role == "user")
    first = last + 1 - len(found)
    assert all(kept is said for kept, said in zip(found, messages[first : last + 1], strict=True))
    assert messages[first].role == "user"


def test_a_chat_that_fits_is_kept_whole() -> None:
    chat = [
        Message("system", "Be brief."),
        Message("user", "How long?"),
        Message("assistant", "4 min"),
        Message("user", "Thanks"),
    ]
    assert fit(chat, budget=7, count_tokens=words) == tuple(chat)
    assert fit(chat, budget=6, count_tokens=words) == (chat[0], chat[3])


def test_prompts_are_counted_in_the_order_in_which_they_are_said() -> None:
    chat = [
        Message("system", "s"),
        *(Message("user" if n % 2 == 0 else "assistant", str(n)) for n in range(9)),
    ]
    asked: list[list[Message]] = []

    def count(messages: Sequence[Message]) -> int:
        asked.append(list(messages))
        return words(messages)

    fit(chat, budget=4, count_tokens=count)
    assert len(asked) > 1
    for messages in asked:
        assert messages[0] is chat[0]
        assert messages[1:] == chat[len(chat) - len(messages) + 1 :]


def test_a_message_said_twice_is_kept_where_it_stands() -> None:
    again = Message("user", "again please")
    chat = [again, Message("assistant", "one two three"), again, Message("assistant", "ok"), again]
    assert fit(chat, budget=5, count_tokens=words) == tuple(chat[2:])


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([Message("user", "one two three")], "message is 3 tokens long; the model has room for 2"),
        (
            [Message("system", "be brief"), Message("user", "one two")],
            "system prompt and the message are 4 tokens long; the model has room for 2",
        ),
        ([Message("system", "be brief")], "no user message"),
        ([Message("assistant", "hello")], "no user message"),
        ([], "no user message"),
    ],
)
def test_what_cannot_fit_is_said_in_numbers(messages: Any, says: str) -> None:
    with pytest.raises(WindowError, match=says) as caught:
        fit(messages, budget=2, count_tokens=words)
    assert isinstance(caught.value, ValueError)
