"""Every way of remembering: never over budget, system prompt kept, order kept, turns whole, the same twice; held
against slow and obvious implementations, with chat templates that have a system role and that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import trim_messages

from memory.langchain_messages import to_langchain
from memory.past import Followed, ListedPast, at, joined, turns_of
from memory.schema import Message
from memory.strategies.choosing import NAMES, checked, strategy_for
from memory.strategies.preparing import FACTS_HEADING, Prepared, Request, Strategy
from memory.strategies.recall import ListedRecollection
from memory.strategies.summarising import pick_sentences
from memory.strategies.summary import InMemorySummaries, RollingSummary, advance
from memory.window import WindowError, fit

Counter = Callable[[Sequence[Message]], int]


def words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def with_a_system_role(messages: Sequence[Message]) -> int:
    """A chat template: something per message, and something per prompt for the opening of the reply."""
    return sum(4 + len(message.content) // 3 for message in messages) + 5


def without_a_system_role(messages: Sequence[Message]) -> int:
    """A template that folds the system text into the first user message, and refuses any other order."""
    assert "system" not in [message.role for message in messages[1:]]
    system = [message.content for message in messages if message.role == "system"]
    said = [message for message in messages if message.role != "system"]
    texts = [len(message.content) for message in said]
    return sum(4 + text // 3 for text in texts) + sum(len(text) // 3 + 1 for text in system) + 5


def strategies() -> list[Strategy]:
    made = [
        strategy_for(name, summaries=InMemorySummaries(), recollection=ListedRecollection()) for name in NAMES
    ]
    return [*made, RollingSummary(InMemorySummaries(), summarise=pick_sentences)]


sentences = st.lists(
    st.sampled_from(
        ["My dog is called Rex.", "It rains.", "Tell me of bees.", "The blue boat left at 7 o'clock."]
    ),
    min_size=1,
    max_size=3,
).map(" ".join)
chats = st.lists(
    st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=sentences), max_size=30
).map(lambda said: [*said, Message("user", "What is my dog called?")])
systems = st.sampled_from(["", "Be brief.", "Answer as a sailor would, and never lie."])
counters = st.sampled_from([words, with_a_system_role, without_a_system_role])
facts = st.lists(st.sampled_from(["I live in Oslo.", "I am allergic to nuts."]), unique=True).map(tuple)


def asked(chat: list[Message], system: str, budget: int, count: Counter, known: tuple[str, ...]) -> Request:
    return Request(system, ListedPast(chat), budget, count, known)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(chats, systems, st.integers(0, 400), counters, facts)
def test_every_strategy_keeps_the_promises(
    chat: list[Message], system: str, budget: int, count: Counter, known: tuple[str, ...]
) -> None:
    for strategy in strategies():
        request = asked(chat, system, budget, count, known)
        try:
            prepared = strategy.prepare(request)
        except WindowError:
            assert strategy.name == "everything" or count([*_system(system), joined(chat)[-1]]) > budget
            continue
        assert prepared.tokens == count(prepared.messages) <= budget
        opening = [message for message in prepared.messages if message.role == "system"]
        assert opening == list(prepared.messages[: len(opening)]) and len(opening) <= 1
        if system:
            assert opening[0].content.startswith(system)
        turns = list(prepared.messages[len(opening) :])
        said = joined(chat)
        assert turns == said[len(said) - len(turns) :] and turns[0].role == "user"
        assert all(one.role != other.role for one, other in pairwise(turns))
        assert strategy.prepare(request) == prepared
        if prepared.first == 0:
            assert all(part.kind in ("system", "facts", "turns") for part in prepared.parts)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(chats, systems, st.integers(0, 400), counters)
def test_what_a_strategy_made_it_leaves_as_it_is(
    chat: list[Message], system: str, budget: int, count: Counter
) -> None:
    for strategy in strategies():
        try:
            made = strategy.prepare(asked(chat, system, budget, count, ())).messages
        except WindowError:
            continue
        opening = made[0].content if made[0].role == "system" else ""
        again = strategy.prepare(asked([m for m in made if m.role != "system"], opening, budget, count, ()))
        assert again.messages == made


@settings(derandomize=True, deadline=None, max_examples=60)
@given(chats, systems, st.integers(0, 400), counters, st.integers(1, 5))
def test_the_windows_are_what_the_slow_ways_find(
    chat: list[Message], system: str, budget: int, count: Counter, most: int
) -> None:
    fitting = slow_window(chat, system, budget, count)
    for name, expected in {
        "token_budget": fitting,
        f"last_turns:{most}": fitting and fitting[-most:],
        "everything": fitting if fitting == slow_turns(chat) else None,
    }.items():
        strategy = strategy_for(name, summaries=InMemorySummaries(), recollection=ListedRecollection())
        if not expected:
            with pytest.raises(WindowError):
                strategy.prepare(asked(chat, system, budget, count, ()))
            continue
        found = strategy.prepare(asked(chat, system, budget, count, ())).messages
        assert list(found) == [*_system(system), *(message for turn in expected for message in turn)]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(chats, systems, st.integers(0, 400), counters)
def test_the_token_budget_is_trim_messages(
    chat: list[Message], system: str, budget: int, count: Counter
) -> None:
    said = joined(chat)
    trimmed = trim_messages(
        [to_langchain(message, message_id=str(place)) for place, message in enumerate(said)],
        max_tokens=budget,
        token_counter=lambda newest_first: count(
            [*_system(system), *(said[int(message.id or 0)] for message in reversed(newest_first))]
        ),
        strategy="last",
        start_on="human",
        end_on="human",
    )
    try:
        found = fit([*_system(system), *said], budget=budget, count_tokens=count)
    except WindowError:
        assert not trimmed
        return
    assert list(found) == [*_system(system), *(said[int(message.id or 0)] for message in trimmed)]


def slow_turns(chat: list[Message]) -> list[list[Message]]:
    return [[one.message for one in turn] for turn in turns_of(ListedPast(joined(chat)).stretch(0, 10**6))]


def slow_window(chat: list[Message], system: str, budget: int, count: Counter) -> list[list[Message]] | None:
    """Every way to begin, longest first: the first whose turns fit."""
    turns = slow_turns(chat)
    for start in range(len(turns)):
        if count([*_system(system), *(message for turn in turns[start:] for message in turn)]) <= budget:
            return turns[start:]
    return None


def _system(text: str) -> list[Message]:
    return [Message("system", text)] if text else []


def dialogue(*said: str) -> list[Message]:
    """What was said in turn, the person first."""
    return [Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(said)]


FILLER = [
    f"{text} {number}"
    for number in range(12)
    for text in ("Tell me about the weather on day", "It is mild on day")
]
LONG = dialogue("My dog is called Rex.", "What a good name.", *FILLER, "What is my dog called?")


def prepared_by(name: str, chat: list[Message], *, budget: int = 90, known: tuple[str, ...] = ()) -> Prepared:
    strategy = strategy_for(name, summaries=InMemorySummaries(), recollection=ListedRecollection())
    return strategy.prepare(Request("Be brief.", ListedPast(chat), budget, words, known))


def test_recall_brings_back_the_turn_that_answers() -> None:
    prepared = prepared_by("recall", LONG)
    assert [part.kind for part in prepared.parts] == ["system", "recalled", "turns"]
    assert "Person: My dog is called Rex.\nYou: What a good name." in prepared.messages[0].content
    assert "Rex" not in "".join(message.content for message in prepared_by("token_budget", LONG).messages)


def test_recall_adds_nothing_where_nothing_answers() -> None:
    prepared = prepared_by("recall", [*LONG[:-1], Message("user", "xylophone")])
    assert [part.kind for part in prepared.parts] == ["system", "turns"]
    assert (
        prepared.messages == prepared_by("token_budget", [*LONG[:-1], Message("user", "xylophone")]).messages
    )


def test_a_summary_speaks_for_what_fell_out() -> None:
    summaries = InMemorySummaries()
    strategy = RollingSummary(summaries)
    request = Request("Be brief.", ListedPast(LONG), 90, words)
    before = strategy.prepare(request)
    assert [part.kind for part in before.parts] == ["system", "turns"]
    made = advance(summaries, request.past, upto=before.first, summarise=pick_sentences, most_words=25)
    assert made == 1
    after = strategy.prepare(request)
    assert [part.kind for part in after.parts] == ["system", "summary", "turns"]
    assert "Person: My dog is called Rex." in after.messages[0].content
    assert advance(summaries, request.past, upto=before.first, summarise=pick_sentences, most_words=15) == 0


def test_a_summary_of_what_was_replaced_is_passed_over_and_made_anew() -> None:
    summaries = InMemorySummaries()
    request = Request("", ListedPast(LONG), 60, words)
    first = RollingSummary(summaries).prepare(request).first
    advance(summaries, request.past, upto=first, summarise=pick_sentences, most_words=15)
    edited = Request("", ListedPast([Message("user", "My cat is called Tom."), *LONG[1:]]), 60, words)
    assert [part.kind for part in RollingSummary(summaries).prepare(edited).parts] == ["turns"]
    advance(summaries, edited.past, upto=first, summarise=pick_sentences, most_words=15)
    anew = RollingSummary(summaries).prepare(edited).messages[0].content
    assert "Tom" in anew and "Rex" not in anew
    assert "Rex" in RollingSummary(summaries).prepare(request).messages[0].content, "arrows lead back"


def test_a_rolling_summary_is_made_of_the_one_before_and_what_follows() -> None:
    steps: list[tuple[str, int]] = []

    def note(so_far: str, said: Sequence[Message], most_words: int) -> str:
        steps.append((so_far, len(said)))
        return f"summary {len(steps)}"

    summaries = InMemorySummaries()
    past = ListedPast(dialogue(*[str(number) for number in range(61)]))
    assert advance(summaries, past, upto=50, summarise=note, most_words=9) == 3
    assert steps == [("", 24), ("summary 1", 24), ("summary 2", 2)]
    found = summaries.latest(past, before=50)
    assert found is not None and (found.text, found.depth) == ("summary 3", 49)
    assert advance(summaries, past, upto=51, summarise=note, most_words=9) == 0, (
        "half a turn is not summarised"
    )
    assert advance(summaries, past, upto=54, summarise=note, most_words=9, most_steps=1) == 1


def test_facts_stand_below_the_system_prompt_and_the_oldest_go_first() -> None:
    known = ("I live in Oslo.", "I am allergic to nuts.")
    prepared = prepared_by("token_budget", LONG, known=known)
    assert (
        prepared.messages[0].content
        == f"Be brief.\n\n{FACTS_HEADING}\n- I live in Oslo.\n- I am allergic to nuts."
    )
    tight = prepared_by("token_budget", LONG[-1:], budget=20, known=known)
    assert "Oslo" not in tight.messages[0].content and "nuts" in tight.messages[0].content
    assert prepared_by("token_budget", LONG[-1:], budget=7, known=known).messages[0].content == "Be brief."


def test_everything_refuses_with_a_way_out() -> None:
    with pytest.raises(WindowError, match="Choose another way of remembering"):
        prepared_by("everything", LONG)
    assert len(prepared_by("everything", LONG, budget=1000).messages) == len(LONG) + 1


@pytest.mark.parametrize(
    "name", ["", "last_turns:0", "last_turns:x", "last_turns:", "forget", "token_budget:3"]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected one of everything, last_turns:4"):
        checked(name)


def test_the_past_reads_only_what_the_window_needs() -> None:
    read: list[int] = []

    class Watched(ListedPast):
        def stretch(self, start: int, stop: int) -> list:
            read.append(stop - start)
            return super().stretch(start, stop)

    chat = dialogue(*[f"message number {number}" for number in range(20_001)])
    counted: list[int] = []

    def count(messages: Sequence[Message]) -> int:
        counted.append(len(messages))
        return with_a_system_role(messages)

    strategy = strategy_for("token_budget", summaries=InMemorySummaries(), recollection=ListedRecollection())
    prepared = strategy.prepare(Request("", Watched(chat), 800, count))
    assert prepared.first > 19_000
    assert sum(read) < 300 and len(counted) <= 8


def test_a_message_that_follows_a_past_stands_at_its_end() -> None:
    past = Followed(ListedPast(dialogue("a", "b")), Message("user", "c"))
    assert [one.message.content for one in past.stretch(0, 3)] == ["a", "b", "c"]
    assert [one.message.content for one in past.stretch(1, 2)] == ["b"]
    assert [one.message.content for one in past.stretch(2, 3)] == ["c"]
    assert past.stretch(3, 3) == [] and at(past, 3) is None and at(past, 2) is not None
    assert [one.message.content for one in Followed(ListedPast([]), Message("user", "c")).stretch(0, 1)] == [
        "c"
    ]
