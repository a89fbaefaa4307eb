"""Which side a judgement stands on: nothing and nobody on both, and nothing that was trained on is examined later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.schema import Message
from training.split import place, prompt_key, split


@dataclass(frozen=True)
class Row:
    """Something said of a reply."""

    conversation_id: str
    prompt: tuple[Message, ...]
    rater: str
    number: int = 0


def row(conversation: str, question: str, rater: str = "me", number: int = 0) -> Row:
    return Row(conversation, (Message("user", question),), rater, number)


names = st.integers(0, 12).map(str)
rows = st.lists(
    st.builds(row, names, names.map(lambda name: f"Question {name}?"), names.map(lambda name: f"r{name}")),
    max_size=40,
)


def talks(side: Sequence[Row]) -> set[str]:
    return {made.conversation_id for made in side}


def prompts(side: Sequence[Row]) -> set[tuple[Message, ...]]:
    return {prompt_key(made.prompt) for made in side}


@settings(derandomize=True, deadline=None)
@given(rows, st.sampled_from([0.1, 0.3, 0.5]))
def test_no_conversation_and_no_prompt_stands_on_both_sides(said: list[Row], share: float) -> None:
    train, heldout = split(said, share=share)
    left_out = Counter(said) - Counter([*train, *heldout])
    assert Counter([*train, *heldout]) <= Counter(said)
    assert all(
        prompt_key(made.prompt) in prompts(train) and place(made.conversation_id) < share for made in left_out
    )
    assert not talks(train) & talks(list(left_out))
    assert not talks(train) & talks(heldout)
    assert not prompts(train) & prompts(heldout)
    assert all(place(talk) < share for talk in talks(heldout))


@settings(derandomize=True, deadline=None)
@given(rows, st.sampled_from([0.1, 0.3, 0.5]))
def test_no_rater_stands_on_both_sides_where_raters_are_placed(said: list[Row], share: float) -> None:
    train, heldout = split(said, share=share, by="rater")
    assert not talks(train) & talks(heldout)
    assert not prompts(train) & prompts(heldout)
    assert all(place(made.rater) >= share for made in train)
    assert all(place(made.rater) < share for made in heldout)
    assert len(train) == sum(place(made.rater) >= share for made in said)


@settings(derandomize=True, deadline=None)
@given(rows, rows)
@pytest.mark.parametrize("by", ["conversation", "rater"])
def test_what_was_trained_on_is_never_held_out_later(
    by: Literal["conversation", "rater"], before: list[Row], more: list[Row]
) -> None:
    trained = set(split(before, share=0.3, by=by)[0])
    assert not trained & set(split([*before, *more], share=0.3, by=by)[1])


def test_what_a_held_out_conversation_says_of_a_prompt_that_is_trained_on_is_left_out() -> None:
    inside = next(name for name in map(str, range(99)) if place(name) >= 0.5)
    outside = next(name for name in map(str, range(99)) if place(name) < 0.5)
    said = [row(inside, "Hello"), row(outside, "hello "), row(outside, "What else?")]
    assert split(said, share=0.5) == ((said[0],), (said[2],))
    assert split(said[:2], share=0.5) == (tuple(said[:2]), ())
    taught = {prompt_key(said[2].prompt)}
    assert split(said[2:], share=0.5, taught=taught) == ((said[2],), ())


def test_a_greeting_that_everybody_begins_with_does_not_move_everybody() -> None:
    said = [
        made for name in map(str, range(60)) for made in (row(name, "Hello"), row(name, f"Question {name}?"))
    ]
    train, heldout = split(said, share=0.25)
    assert len(talks(train)) + len(talks(heldout)) == 60 and 8 <= len(talks(heldout)) <= 22
    assert {made.prompt[0].content for made in heldout} == {f"Question {name}?" for name in talks(heldout)}


def test_what_a_held_out_rater_said_of_something_trained_on_is_left_out() -> None:
    teacher = next(name for name in map(str, range(99)) if place(name) >= 0.5)
    examiner = next(name for name in map(str, range(99)) if place(name) < 0.5)
    said = [
        row("a", "Why?", teacher),
        row("b", "WHY?", examiner),
        row("a", "And?", examiner),
        row("c", "How?", examiner),
    ]
    assert split(said, share=0.5, by="rater") == ((said[0],), (said[3],))
