"""The strategies in other people's chains: a plain chain, `RunnableWithMessageHistory`, a LangGraph graph with a
checkpointer; and in the studio, where the prompt stored with a turn is the one that the policy saw and that a rating
trains on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from desk import ANN, Desk, desk_at
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from memory.conversations import Conversations
from memory.database import Database, open_database
from memory.history import LedgerHistory
from memory.schema import Message, Rating
from memory.strategies.chain import Remember
from memory.strategies.choosing import NAMES, strategy_for
from memory.strategies.preparing import Strategy
from memory.strategies.recall import ListedRecollection, Recall
from memory.strategies.summarising import WrittenSummary, pick_sentences
from memory.strategies.summary import InMemorySummaries, RollingSummary, Summary
from memory.summaries import StoredSummaries
from memory.window import WindowError
from studio.intake import ChatRefused
from studio.policy.scripted import ScriptedPolicy


def words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def strategies() -> list[Strategy]:
    made = [
        strategy_for(name, summaries=InMemorySummaries(), recollection=ListedRecollection()) for name in NAMES
    ]
    return [*made, RollingSummary(InMemorySummaries(), summarise=pick_sentences)]


class Seen:
    """A model that answers "Noted." and keeps what it was shown."""

    def __init__(self) -> None:
        self.prompts: list[list[BaseMessage]] = []

    def runnable(self) -> Any:
        def answer(messages: list[BaseMessage]) -> AIMessage:
            self.prompts.append(messages)
            return AIMessage("Noted.")

        return RunnableLambda(answer)


TALK = [
    "My dog is called Rex.",
    "It rains here today, as it did before.",
    "I like old boats.",
    "What is my dog called?",
]


@pytest.mark.parametrize("strategy", strategies(), ids=lambda strategy: strategy.name)
def test_every_strategy_works_before_a_model_with_a_message_history(
    strategy: Strategy, tmp_path: Path
) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    conversations = Conversations(database)
    mine = conversations.create("me", system_prompt="Be brief.").id
    seen = Seen()
    budget = 200 if strategy.name == "everything" else 24
    chain = RunnableWithMessageHistory(
        Remember(strategy, budget=budget, count_tokens=words) | seen.runnable(),
        lambda session_id: LedgerHistory(conversations, session_id),
    )
    for text in TALK:
        chain.invoke([HumanMessage(text)], {"configurable": {"session_id": mine}})
    database.close()
    for prompt, text in zip(seen.prompts, TALK, strict=True):
        assert prompt[0].text.startswith("Be brief.") and prompt[-1].text == text
        assert sum(len(message.text.split()) for message in prompt) <= budget


@pytest.mark.parametrize("strategy", strategies(), ids=lambda strategy: strategy.name)
def test_every_strategy_works_in_a_graph_whose_checkpointer_keeps_the_messages(strategy: Strategy) -> None:
    class State(TypedDict):
        messages: Annotated[list[BaseMessage], add_messages]

    seen = Seen()
    budget = 200 if strategy.name == "everything" else 30
    model = Remember(strategy, budget=budget, count_tokens=words) | seen.runnable()
    graph = StateGraph(State)
    graph.add_node("answer", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    app = graph.compile(checkpointer=InMemorySaver())
    for thread in ("one", "other"):
        for text in TALK:
            app.invoke({"messages": [HumanMessage(text)]}, {"configurable": {"thread_id": thread}})
    kept = app.get_state({"configurable": {"thread_id": "one"}}).values["messages"]
    assert len(kept) == 2 * len(TALK), "the checkpointer keeps everything; only what the model sees is chosen"
    assert all(sum(len(message.text.split()) for message in prompt) <= budget for prompt in seen.prompts)
    assert seen.prompts[-1][-1].text == TALK[-1]


def test_kept_messages_come_out_as_they_went_in() -> None:
    said = [
        SystemMessage("Be brief."),
        HumanMessage("Hi", id="h1"),
        AIMessage("Yes?", id="a1"),
        HumanMessage("Go"),
    ]
    remember = Remember(Recall(ListedRecollection()), budget=50, count_tokens=words)
    assert all(one is other for one, other in zip(remember.invoke(said), said, strict=True))
    with pytest.raises(WindowError):
        Remember(Recall(ListedRecollection()), budget=1, count_tokens=words).invoke(said)


def test_any_langchain_model_can_write_the_summary() -> None:
    model = FakeListChatModel(responses=["The dog is Rex. " + "word " * 200])
    text = WrittenSummary(model)("", [Message("user", "My dog is called Rex.")], 20)
    assert text.startswith("The dog is Rex.") and len(text.split()) <= 40
    asked: list[Any] = []
    fake = GenericFakeChatModel(messages=iter([AIMessage("Short.")]))
    WrittenSummary(RunnableLambda(lambda given: asked.append(given) or fake.invoke(given)))(  # type: ignore[arg-type]
        "Knew this.", [Message("user", "And that.")], 20
    )
    assert "Knew this." in asked[0][1].text and "Person: And that." in asked[0][1].text


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'kept.db'}")
    yield opened
    opened.close()


def test_kept_summaries_are_found_on_their_path_and_by_their_maker_only(database: Database) -> None:
    conversations = Conversations(database)
    mine = conversations.create("me").id
    first = conversations.append(mine, Message("user", "a"), parent=None)
    reply = conversations.append(mine, Message("assistant", "b"), parent=first.id)
    last = conversations.append(mine, Message("user", "c"), parent=reply.id)
    past = conversations.past(mine)
    kept = StoredSummaries(database, mine, maker="picked")
    kept.keep(Summary(reply.id, 1, "a, then b"))
    assert kept.latest(past, before=3) == Summary(reply.id, 1, "a, then b")
    assert kept.latest(past, before=1) is None
    assert StoredSummaries(database, mine, maker="other").latest(past, before=3) is None
    retried = conversations.append(mine, Message("assistant", "B"), parent=first.id)
    conversations.append(mine, Message("user", "c"), parent=retried.id)
    assert kept.latest(conversations.past(mine), before=3) is None
    assert kept.latest(conversations.past(mine, leaf=last.id), before=3) is not None
    kept.forget()
    assert kept.latest(past, before=3) is None


def reply(messages: Sequence[Message], version: str, seed: int) -> str:
    return f"I have heard it, number {seed % 1000}."


def long_talk(desk: Desk, conversation_id: str) -> None:
    desk.say(conversation_id, "My parrot is called Ludo.")
    for number in range(14):
        desk.say(conversation_id, f"On day {number} the weather was mild and there was nothing else to tell.")
        desk.reminder.catch_up(conversation_id)


def test_what_is_stored_is_what_the_policy_saw_and_what_a_rating_trains_on(tmp_path: Path) -> None:
    saw: list[tuple[Message, ...]] = []

    def script(messages: Sequence[Message], version: str, seed: int) -> str:
        saw.append(tuple(messages))
        return reply(messages, version, seed)

    policy = ScriptedPolicy(delay=0.0, script=script, context=200, max_tokens=20)
    with desk_at(
        tmp_path, policy=policy, max_new_tokens=20, remember="summary+recall", system_prompt="Be kind."
    ) as desk:
        where = desk.begin()
        long_talk(desk, where)
        exchange = desk.say(where, "What is my parrot called?")
        turn = desk.ledger.turn(exchange.sides[0].turn_id)
        assert turn.prompt == exchange.prompt == saw[-1]
        system = turn.prompt[0].content
        assert system.startswith("Be kind.") and "Ludo" in system
        assert "in short:" in system and "Earlier passages" in system
        assert policy.count_tokens(turn.prompt) <= 180
        desk.ledger.record(Rating(turn.id, 1, ANN, desk.clock()))
        (rated,) = desk.ledger.ratings()
        assert desk.ledger.turn(rated.turn_id).prompt == saw[-1]


def test_summaries_are_made_behind_a_reply_and_again_after_an_edit(tmp_path: Path) -> None:
    policy = ScriptedPolicy(delay=0.0, script=reply, context=150, max_tokens=20)
    with desk_at(tmp_path, policy=policy, max_new_tokens=20, remember="summary") as desk:
        where = desk.begin()
        long_talk(desk, where)
        first = desk.chat.owned.path(ANN, where)[0]
        later = desk.chat.owned.path(ANN, where)[-2]
        assert "Ludo" in desk.say(where, "And now?").prompt[0].content
        desk.chat.edit_user(ANN, first.id, "My parrot is called Kiki.").wait(10)
        for number in range(14):
            desk.say(where, f"On evening {number} the weather was mild and there was nothing else to tell.")
        until = time.monotonic() + 10
        while "Kiki" not in desk.say(where, "And now?").prompt[0].content:
            assert time.monotonic() < until, "no summary was made in the background"
        assert "Ludo" not in desk.say(where, "And now?").prompt[0].content
        desk.chat.edit_user(ANN, later.id, "And later?").wait(10)
        assert "Ludo" in desk.chat._exchanges.latest(where).prompt[0].content, "the first branch has its own"


def test_each_conversation_has_its_own_way(tmp_path: Path) -> None:
    policy = ScriptedPolicy(delay=0.0, script=reply, context=150, max_tokens=20)
    with desk_at(tmp_path, policy=policy, max_new_tokens=20) as desk:
        one, other, third = desk.begin(), desk.begin(), desk.begin()
        desk.conversations.remember_by(one, "last_turns:2")
        desk.conversations.remember_by(other, "everything")
        for where in (one, other, third):
            for number in range(4):
                exchange = desk.say(where, f"Message {number}")
            assert len(exchange.prompt) == (3 if where == one else 7)
        with pytest.raises(ChatRefused, match="Choose another way of remembering"):
            for number in range(40):
                desk.say(other, f"Message {number}")


@pytest.mark.parametrize("many", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_many_people_talking_at_once_share_nothing(tmp_path: Path, many: int) -> None:
    """As many conversations as people, their messages interleaved: each prompt holds only its own."""
    policy = ScriptedPolicy(delay=0.0, script=reply, context=150, max_tokens=20, max_waiting=1000)
    people = [f"person{number}" for number in range(many)]
    with desk_at(tmp_path, policy=policy, max_new_tokens=20, remember="summary+recall") as desk:
        homes = {person: desk.begin(person) for person in people}
        for round_ in range(3):
            running = [
                desk.chat.send(person, homes[person], f"My secret is {person}secret, round {round_}.")
                for person in people
            ]
            assert all(exchange.wait(60) for exchange in running)
            for exchange in running:
                text = " ".join(message.content for message in exchange.prompt)
                assert f"{exchange.owner}secret" in text
                assert text.count("secret,") == text.count(f" {exchange.owner}secret,")
