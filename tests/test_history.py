"""LangChain over the same rows: a real RunnableWithMessageHistory and a fake model."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from memory.conversations import Conversations, UnknownConversation
from memory.database import Database
from memory.history import LedgerHistory
from memory.schema import Message

pytest_plugins = ("tests.postgres",)

# LangChain recommends LangGraph for new chains; people's chains on this class go on working until its 2.0.
pytestmark = pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


def replies(*texts: str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage(text) for text in texts]))


def test_a_chain_with_history_speaks_into_the_tree(conversations: Conversations) -> None:
    made = conversations.create("me", system_prompt="Be brief.").id
    seen: list[list[tuple[str, str]]] = []

    def spy(prompt: object) -> object:
        seen.append([(message.type, message.content) for message in prompt.to_messages()])  # type: ignore[attr-defined]
        return prompt

    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{question}")])
    chain = RunnableWithMessageHistory(
        prompt | RunnableLambda(spy) | replies("4 min", "Yes, 96 degrees"),
        lambda session_id: LedgerHistory(conversations, session_id),
        input_messages_key="question",
        history_messages_key="history",
    )
    session = {"configurable": {"session_id": made}}
    chain.invoke({"question": "How long?"}, config=session)
    streamed = "".join(part.content for part in chain.stream({"question": "And hot?"}, config=session))

    assert streamed == "Yes, 96 degrees"
    assert seen[1] == [
        ("system", "Be brief."),
        ("human", "How long?"),
        ("ai", "4 min"),
        ("human", "And hot?"),
    ]
    assert [node.message for node in conversations.path(made)] == [
        Message("user", "How long?"),
        Message("assistant", "4 min"),
        Message("user", "And hot?"),
        Message("assistant", "Yes, 96 degrees"),
    ]


def test_an_async_chain_works_too(conversations: Conversations) -> None:
    made = conversations.create("me").id
    chain = RunnableWithMessageHistory(
        replies("Hello!"), lambda session_id: LedgerHistory(conversations, session_id)
    )
    asyncio.run(chain.ainvoke([HumanMessage("Hi")], config={"configurable": {"session_id": made}}))
    assert [node.message.content for node in conversations.path(made)] == ["Hi", "Hello!"]


def test_history_is_the_path_that_is_shown(conversations: Conversations) -> None:
    made = conversations.create("me").id
    question = conversations.append(made, Message("user", "How long?"), parent=None).id
    conversations.append(made, Message("assistant", "4 min"), parent=question)
    retried = conversations.append(made, Message("assistant", "Four minutes."), parent=question).id
    history = LedgerHistory(conversations, made)
    assert [message.content for message in history.messages] == ["How long?", "Four minutes."]
    assert history.messages[1].id == retried
    history.add_user_message("Thanks")
    history.add_ai_message("You are welcome")
    assert [node.message.role for node in conversations.path(made)] == ["user", "assistant"] * 2
    assert conversations.path(made)[1].id == retried


def test_two_histories_of_one_conversation_agree(conversations: Conversations) -> None:
    made = conversations.create("me").id
    one, other = LedgerHistory(conversations, made), LedgerHistory(conversations, made)
    one.add_user_message("Hi")
    other.add_ai_message("Hello")
    assert [message.content for message in one.messages] == ["Hi", "Hello"]


def test_clearing_shows_nothing_and_deletes_nothing(conversations: Conversations) -> None:
    made = conversations.create("me", system_prompt="Be brief.").id
    history = LedgerHistory(conversations, made)
    history.add_user_message("Hi")
    head = conversations.get(made).head
    history.clear()
    assert history.messages == [SystemMessage("Be brief.")]
    assert conversations.path(made, leaf=head)[0].message.content == "Hi"
    history.add_user_message("Again")
    assert [message.content for message in history.messages] == ["Be brief.", "Again"]
    assert len(conversations.children(made, None)) == 2


def test_text_parts_and_chunks_are_joined(conversations: Conversations) -> None:
    made = conversations.create("me").id
    LedgerHistory(conversations, made).add_messages(
        [HumanMessage([{"type": "text", "text": "How "}, "long?"]), AIMessageChunk("4 min")]
    )
    assert [node.message.content for node in conversations.path(made)] == ["How long?", "4 min"]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (SystemMessage("Be rude."), "set_system_prompt"),
        (ToolMessage("42", tool_call_id="x"), "'tool'; expected"),
        (AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "x"}]), "calls tools"),
        (HumanMessage([{"type": "image_url", "image_url": {"url": "data:"}}]), "not text"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_said(
    conversations: Conversations, message: AIMessage, says: str
) -> None:
    made = conversations.create("me").id
    with pytest.raises(ValueError, match=says):
        LedgerHistory(conversations, made).add_messages([HumanMessage("Hi"), message])
    assert conversations.path(made) == []


def test_a_history_needs_a_conversation(conversations: Conversations) -> None:
    with pytest.raises(UnknownConversation):
        LedgerHistory(conversations, "nope")
