"""What can be seen of a reply without understanding it: its shape in numbers, and the words that mark it.

Pure functions of text, for the judge to weigh. They name no taste and prefer nothing; nothing here is about one
language, though scripts that do not separate words give the word traits little to hold on to.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise

from memory.schema import Message

Prompt = tuple[Message, ...]

_WORD = re.compile(r"\w+")
_PIECE = re.compile(r"\w+|[^\w\s]")
_LIST_LINE = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?…](?:\s|$)")
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?…])\s+|\n+")


def shape(prompt: Prompt, reply: str) -> list[float]:
    """Length, layout, punctuation and marks of tone, as numbers of about one; always in the same order."""
    words = [word.casefold() for word in _WORD.findall(reply)]
    asked = {word.casefold() for word in _WORD.findall(prompt[-1].content)} if prompt else set()
    text = reply.strip()
    letters = sum(character.isalpha() for character in text)
    return [
        math.log1p(len(words)),
        len(words) / 20,
        math.log1p(len(_LIST_LINE.findall(text))),
        math.log1p(text.count("\n")),
        float(text.endswith("?")),
        math.log1p(text.count("?")),
        float(text.endswith("!")),
        math.log1p(text.count("!")),
        math.log1p(len(_SENTENCE_END.findall(text))),
        math.log1p(text.count(",")),
        math.log1p(sum(ord(character) > 0x2190 for character in text)),
        math.log1p(sum(character.isdigit() for character in text)),
        sum(character.isupper() for character in text) / max(letters, 1),
        sum(len(word) for word in words) / max(len(words), 1) / 5,
        len(set(words)) / max(len(words), 1),
        sum(word in asked for word in words) / max(len(words), 1),
        math.log1p(sum(text.count(mark) for mark in "\"'’“”()")),
    ]


def marks(reply: str) -> frozenset[str]:
    """Which words and word pairs occur, and which of them open or close the reply or open one of its sentences."""
    pieces = _pieces(reply)
    found = {f"has {piece}" for piece in pieces}
    found |= {f"has {first} {second}" for first, second in pairwise(pieces)}
    if pieces:
        found |= {f"opens with {pieces[0]}", f"closes with {' '.join(pieces[-2:])}"}
    for sentence in _BETWEEN_SENTENCES.split(reply):
        opening = _pieces(sentence)[:1]
        found |= {f"sentence opens with {piece}" for piece in opening}
    return frozenset(found)


def _pieces(text: str) -> list[str]:
    return [piece.casefold() for piece in _PIECE.findall(text.replace("’", "'"))]
