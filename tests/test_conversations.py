"""Conversations: trees, paths, and what is refused. Every test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from memory.conversations import Conversations, UnknownConversation, UnknownNode
from memory.database import Database
from memory.schema import Message
from tests.postgres import Clock

pytest_plugins = ("tests.postgres",)


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


def say(conversations: Conversations, conversation: str, text: str, parent: str | None, **more: Any) -> str:
    role: Any = more.pop("role", "user")
    return conversations.append(conversation, Message(role, text), parent=parent, **more).id


def test_a_new_conversation_is_empty_and_comes_back_as_made(
    conversations: Conversations, clock: Clock
) -> None:
    made = conversations.create("me", system_prompt="Be brief.", title="Tea")
    assert (made.owner, made.title, made.system_prompt, made.head) == ("me", "Tea", "Be brief.", None)
    assert made.created_at == made.updated_at == clock.now
    assert conversations.get(made.id) == made
    assert conversations.path(made.id) == []


def test_appending_moves_the_head_along(conversations: Conversations) -> None:
    made = conversations.create("me")
    question = conversations.append(made.id, Message("user", "How long?"), parent=None)
    answer = conversations.append(made.id, Message("assistant", "4 min"), parent=question.id, turn_id="t1")
    assert conversations.get(made.id).head == answer.id
    assert conversations.path(made.id) == [question, answer]
    assert conversations.node(answer.id) == answer
    assert (answer.turn_id, answer.parent, question.parent) == ("t1", question.id, None)


def test_retry_and_edit_make_siblings_and_keep_everything(conversations: Conversations) -> None:
    made = conversations.create("me").id
    first = say(conversations, made, "How long?", None)
    reply = say(conversations, made, "4 min", first, role="assistant")
    retried = say(conversations, made, "Four minutes.", first, role="assistant")
    edited = say(conversations, made, "How hot?", None)
    hot = say(conversations, made, "96 degrees", edited, role="assistant")

    assert [node.id for node in conversations.siblings(reply)] == [reply, retried]
    assert [node.id for node in conversations.siblings(retried)] == [reply, retried]
    assert [node.id for node in conversations.siblings(first)] == [first, edited]
    assert [node.id for node in conversations.children(made, None)] == [first, edited]
    assert [node.id for node in conversations.children(made, edited)] == [hot]
    assert [node.id for node in conversations.path(made)] == [edited, hot]
    assert [node.id for node in conversations.path(made, leaf=reply)] == [first, reply]

    conversations.set_head(made, retried)
    assert [node.id for node in conversations.path(made)] == [first, retried]
    conversations.set_head(made, None)
    assert conversations.path(made) == []


def test_the_head_can_stay(conversations: Conversations) -> None:
    made = conversations.create("me").id
    first = say(conversations, made, "one", None)
    beside = say(conversations, made, "two", None, move_head=False)
    assert conversations.get(made).head == first
    assert [node.id for node in conversations.siblings(first)] == [first, beside]


def test_a_long_path_comes_in_order(conversations: Conversations) -> None:
    made = conversations.create("me").id
    parent = None
    for number in range(300):
        parent = say(conversations, made, str(number), parent)
    assert [node.message.content for node in conversations.path(made)] == [str(n) for n in range(300)]


def test_the_list_shows_the_owners_last_spoken_in_first(conversations: Conversations, clock: Clock) -> None:
    old, new, strangers = (conversations.create(owner).id for owner in ("me", "me", "you"))
    assert [kept.id for kept in conversations.list("me")] == [new, old]
    clock.now += 5
    say(conversations, old, "still here", None)
    assert [kept.id for kept in conversations.list("me")] == [old, new]
    assert conversations.get(old).updated_at == clock.now
    clock.now += 5
    conversations.rename(new, "Renamed")
    assert [(kept.id, kept.title) for kept in conversations.list("me")] == [(old, ""), (new, "Renamed")]
    assert [kept.id for kept in conversations.list("me", limit=1)] == [old]
    assert [kept.id for kept in conversations.list("you")] == [strangers]


def test_a_hidden_conversation_leaves_the_list_and_keeps_its_messages(conversations: Conversations) -> None:
    made = conversations.create("me").id
    first = say(conversations, made, "hello", None)
    conversations.hide(made)
    assert conversations.list("me") == []
    assert conversations.get(made).id == made
    assert [node.id for node in conversations.path(made)] == [first]


def test_the_system_prompt_can_change(conversations: Conversations) -> None:
    made = conversations.create("me", system_prompt="Be brief.").id
    conversations.set_system_prompt(made, "Be thorough.")
    assert conversations.get(made).system_prompt == "Be thorough."


def test_any_text_comes_back_as_it_was(conversations: Conversations) -> None:
    hostile = (
        "NUL \x00, lone \ud800 and \udfff, escape \ufdd0, bell \x07, 👩‍👩‍👧 עברית\r\n'; DROP TABLE nodes; --"
    )
    made = conversations.create(hostile, title=hostile, system_prompt=hostile)
    assert conversations.list(hostile) == [made]
    node = conversations.append(made.id, Message("user", hostile * 50), parent=None)
    assert conversations.node(node.id).message.content == hostile * 50


def test_a_very_long_message_comes_back_whole(conversations: Conversations) -> None:
    made = conversations.create("me").id
    text = "".join(chr(0x4E00 + number % 5000) for number in range(300_000))
    node = conversations.append(made, Message("user", text), parent=None)
    assert conversations.node(node.id).message.content == text


def test_what_is_not_there_is_said_in_words(conversations: Conversations) -> None:
    with pytest.raises(UnknownConversation) as caught:
        conversations.get("nope\x00")
    assert str(caught.value) == "There is no conversation 'nope\\x00'. Choose one from the list."
    assert isinstance(caught.value, KeyError)
    for change in (
        lambda: conversations.rename("nope", "x"),
        lambda: conversations.hide("nope"),
        lambda: conversations.set_head("nope", None),
        lambda: conversations.set_system_prompt("nope", "x"),
        lambda: conversations.append("nope", Message("user", "x"), parent=None),
        lambda: conversations.path("nope"),
    ):
        with pytest.raises(UnknownConversation):
            change()
    with pytest.raises(UnknownNode, match="no message 'nope'"):
        conversations.node("nope")
    with pytest.raises(UnknownNode):
        conversations.siblings("nope")


def test_another_conversations_message_is_refused(conversations: Conversations) -> None:
    mine, yours = conversations.create("me").id, conversations.create("you").id
    secret = say(conversations, yours, "secret", None)
    for trespass in (
        lambda: conversations.append(mine, Message("user", "x"), parent=secret),
        lambda: conversations.set_head(mine, secret),
        lambda: conversations.path(mine, leaf=secret),
    ):
        with pytest.raises(UnknownNode, match="is not in conversation"):
            trespass()
    assert conversations.get(mine).head is None
    assert conversations.children(mine, None) == []
    assert conversations.children(mine, secret) == []


def test_a_system_message_is_no_node(conversations: Conversations) -> None:
    made = conversations.create("me").id
    with pytest.raises(ValueError, match="set_system_prompt"):
        conversations.append(made, Message("system", "x"), parent=None)
