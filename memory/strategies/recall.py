"""Earlier passages that have to do with what was just said, and the newest turns.

What finds passages is a `Recollection`: BM25 over the list itself (here), over the database (`memory.search`), or
LangChain `Embeddings` (`memory.embedded`). A passage is a whole turn. This module ranks nothing by itself and reads no
database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from memory.bm25 import corpus_of, score
from memory.past import Past, Said, turns_of
from memory.strategies.preparing import Addition, Measure, Part, Prepared, Request, prepare
from memory.words import words_of

HEADING = "Earlier passages that may matter now:"
SPEAKERS = {"user": "Person", "assistant": "You", "system": "System"}
MOST_PASSAGES = 6
SHARE = 0.5
"""Of the best passage's score: a passage that answers to the question much worse than the best one is left out."""


@dataclass(frozen=True)
class Passage:
    """A turn that was found: its text as it will be read, when it was said (for their order), the ids of its messages,
    and how well it answers. `elsewhere` where it is from another conversation.
    """

    text: str
    order: float
    sources: tuple[str, ...]
    score: float
    elsewhere: bool = False


class Recollection(Protocol):
    """What finds passages."""

    def find(self, asked: str, past: Past, *, before: int, limit: int) -> list[Passage]:
        """The passages that answer best, best first: from the path before the place `before`, or from elsewhere."""


class RecallAddition:
    """Passages for the end of `past`, as many as there is room for, in the order in which they were said."""

    def __init__(self, recollection: Recollection) -> None:
        self._recollection = recollection

    def add(self, request: Request, *, before: int, room: int, measure: Measure) -> Part | None:
        """The best passages that fit, whole; None where nothing answers."""
        asked = last_said(request.past)
        found = self._recollection.find(asked, request.past, before=before, limit=MOST_PASSAGES)
        worth = [passage for passage in found if passage.score >= SHARE * found[0].score]
        chosen: list[Passage] = []
        left = room - measure(HEADING)
        for passage in worth:
            cost = measure(f"\n{passage.text}") + 1
            if cost <= left:
                chosen.append(passage)
                left -= cost
        if not chosen:
            return None
        chosen.sort(key=lambda passage: (not passage.elsewhere, passage.order))
        text = "\n".join([HEADING, *(passage.text for passage in chosen)])
        return Part("recalled", text, tuple(source for passage in chosen for source in passage.sources))


class Recall:
    """The newest turns that fit, and passages recalled from before. `others` are additions that stand before them."""

    name = "recall"

    def __init__(self, recollection: Recollection, *, others: Sequence[Addition] = ()) -> None:
        self._additions = (*others, RecallAddition(recollection))

    def prepare(self, request: Request) -> Prepared:
        """The newest turns and the passages."""
        return prepare(request, additions=self._additions)


class ListedRecollection:
    """BM25 over the path itself, read whole: for lists that are in memory anyway."""

    def find(self, asked: str, past: Past, *, before: int, limit: int) -> list[Passage]:
        """The turns before the place `before` that share words with `asked`."""
        turns = turns_of(past.stretch(0, before))
        texts = [words_of(text_of(turn)) for turn in turns]
        corpus = corpus_of(texts)
        words = words_of(asked)
        scores = [score(words, text, corpus=corpus) for text in texts]
        best = sorted(range(len(turns)), key=lambda place: (-scores[place], -place))[:limit]
        return [passage_of(turns[place], score=scores[place]) for place in best if scores[place] > 0]


def passage_of(
    turn: Sequence[Said], *, score: float, elsewhere: bool = False, order: float | None = None
) -> Passage:
    """The passage that a turn makes. `order` is when it was said, by default its place on the path."""
    return Passage(
        text="\n".join(f"{SPEAKERS[one.message.role]}: {one.message.content}" for one in turn),
        order=turn[0].depth if order is None else order,
        sources=tuple(one.id for one in turn),
        score=score,
        elsewhere=elsewhere,
    )


def text_of(turn: Sequence[Said]) -> str:
    """All that was said in a turn."""
    return "\n".join(one.message.content for one in turn)


def last_said(past: Past) -> str:
    """What the person said last, without the replies around it."""
    for one in reversed(past.stretch(max(0, past.length - 8), past.length)):
        if one.message.role == "user":
            return one.message.content
    return ""
