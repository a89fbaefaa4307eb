"""The data contract: what the values refuse, and the symmetry of comparisons."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.schema import (
    FINAL_STATES,
    LABELS,
    Comparison,
    LabeledComparison,
    Message,
    Ranking,
    Rating,
    Score,
)

texts = st.text(max_size=20)
asked = st.builds(
    Comparison,
    id=texts,
    conversation_id=texts,
    prompt=st.tuples(st.builds(Message, role=st.sampled_from(["system", "user"]), content=texts)),
    turn_A=texts,
    turn_B=texts,
    completion_A=texts,
    completion_B=texts,
    version_A=texts,
    version_B=texts,
    shown_first=st.sampled_from(["A", "B"]),
    created_at=st.floats(0, 1e10),
)
answered = st.builds(
    LabeledComparison,
    comparison=asked,
    label=st.sampled_from(LABELS),
    rater=texts,
    seconds=st.floats(0, 1e6),
    created_at=st.floats(0, 1e10),
    early=st.booleans(),
)


@settings(derandomize=True, deadline=None)
@given(answered)
def test_swapping_twice_gives_the_comparison_back(labeled: LabeledComparison) -> None:
    assert labeled.swap().swap() == labeled


@settings(derandomize=True, deadline=None)
@given(answered)
def test_swapping_keeps_what_was_preferred(labeled: LabeledComparison) -> None:
    swapped = labeled.swap()
    assert (swapped.chosen, swapped.rejected) == (labeled.chosen, labeled.rejected)
    assert swapped.comparison.turn_A == labeled.comparison.turn_B
    assert swapped.comparison.version_B == labeled.comparison.version_A
    on_screen = {"A": labeled.comparison.completion_A, "B": labeled.comparison.completion_B}
    on_screen_after = {"A": swapped.comparison.completion_A, "B": swapped.comparison.completion_B}
    assert on_screen[labeled.comparison.shown_first] == on_screen_after[swapped.comparison.shown_first]


@pytest.mark.parametrize(
    ("label", "chosen", "rejected"),
    [("A", "left", "right"), ("B", "right", "left"), ("tie", None, None), ("both_bad", None, None)],
)
def test_only_a_preference_makes_a_pair(label: Any, chosen: str | None, rejected: str | None) -> None:
    question = Comparison("c", "k", (), "t1", "t2", "left", "right", "base", "v0001", "A", 0.0)
    answer = LabeledComparison(question, label, "me", 1.0, 0.0)
    assert (answer.chosen, answer.rejected) == (chosen, rejected)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Message("tool", "x"), "'tool'; expected one of system, user, assistant"),  # type: ignore[arg-type]
        (lambda: Rating("t", 0, "me", 0.0), "is 0; expected -1"),  # type: ignore[arg-type]
        (lambda: Score("t", "funny", 3, "me", 0.0), "'funny'; expected one of helpful"),  # type: ignore[arg-type]
        (lambda: Score("t", "clear", 6, "me", 0.0), "is 6; expected a whole number from 1 to 5"),
        (lambda: Score("t", "clear", 0, "me", 0.0), "is 0; expected a whole number from 1 to 5"),
        (lambda: Ranking(("t1",), "me", 0.0), "two or more different turns"),
        (lambda: Ranking(("t1", "t1"), "me", 0.0), "two or more different turns"),
    ],
)
def test_refuses_what_cannot_be(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_an_unknown_label_is_refused() -> None:
    question = Comparison("c", "k", (), "t1", "t2", "left", "right", "base", "v0001", "A", 0.0)
    with pytest.raises(ValueError, match="'left'; expected one of A, B, tie, both_bad"):
        LabeledComparison(question, "left", "me", 1.0, 0.0)  # type: ignore[arg-type]


def test_values_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Message("user", "hi").content = "bye"  # type: ignore[misc]


def test_a_run_under_way_is_not_final() -> None:
    assert not {"queued", "training", "evaluating"} & set(FINAL_STATES)
