"""What a reply shows: shape in numbers, and the words that mark it."""

from __future__ import annotations

import math

from memory.schema import Message
from training.traits import marks, shape

PROMPT = (Message("user", "What is tea?"),)


def test_the_shape_sees_lists_questions_and_tone():
    plain, lively = shape(PROMPT, "Tea is hot."), shape(PROMPT, "- Tea!\n- Why? 😀\n\nShall we?")
    assert len(plain) == len(lively) == len(shape((), ""))
    assert sum(a != b for a, b in zip(plain, lively, strict=True)) > 8


def test_the_shape_of_nothing_is_finite():
    for reply in ("", "   ", "..", "你好", "?"):
        assert all(map(math.isfinite, shape((), reply)))


def test_marks_are_words_pairs_and_places():
    found = marks("Sure. It’s tea.\nIt is hot")
    assert {"has sure", "has it's" if "has it's" in found else "has it", "has is hot", "has . it"} <= found
    assert {"opens with sure", "closes with is hot", "sentence opens with it"} <= found
    assert "sentence opens with tea" not in found
    assert marks("") == frozenset()


def test_case_does_not_matter():
    assert marks("Tea IS hot") == marks("tea is HOT")
