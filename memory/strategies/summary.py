"""A rolling summary of what fell out of the window, and the newest turns.

Preparing a prompt only reads the summary that is there; making one is `advance`, which whoever holds the conversation
calls when nobody waits (the studio after each reply, on a thread of its own). A summary says up to which message it
speaks, so one that was made of a message since replaced is passed over, and an earlier one, or none, stands until
`advance` has made it anew. What makes the words of a summary is a function; this module knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from memory.past import Past, Said, at, turns_of
from memory.schema import Message
from memory.strategies.preparing import (
    ADDITIONS_SHARE,
    Addition,
    Measure,
    Part,
    Prepared,
    Request,
    left_out_before,
    prepare,
)

HEADING = "The conversation so far, in short:"
MESSAGES_AT_ONCE = 24
"""So many messages become part of a summary in one step."""

Summarise = Callable[[str, Sequence[Message], int], str]
"""(summary so far, what was said next, most words) -> the summary of both."""


@dataclass(frozen=True)
class Summary:
    """What was said on a path up to and including the message `through`, which stands at the place `depth`."""

    through: str
    depth: int
    text: str


class Summaries(Protocol):
    """Where the summaries of one conversation are kept."""

    def latest(self, past: Past, *, before: int) -> Summary | None:
        """The one that reaches furthest on this path, among those that reach no further than the place `before`."""

    def keep(self, summary: Summary) -> None:
        """Remember one more."""


class InMemorySummaries:
    """Summaries in this process, for a chain that keeps them nowhere else."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], Summary] = {}

    def latest(self, past: Past, *, before: int) -> Summary | None:
        """The furthest one whose last message stands on the path."""
        for depth, through in sorted(self._kept, reverse=True):
            if depth < before and is_on(past, through, depth):
                return self._kept[depth, through]
        return None

    def keep(self, summary: Summary) -> None:
        """Remember `summary`."""
        self._kept[summary.depth, summary.through] = summary


class SummaryAddition:
    """Reads the summary for a prompt. Lines that there is no room for are left off, the oldest first."""

    def __init__(self, summaries: Summaries) -> None:
        self._summaries = summaries

    def add(self, request: Request, *, before: int, room: int, measure: Measure) -> Part | None:
        """The summary of what lies before the turns, or None where there is none yet."""
        summary = self._summaries.latest(request.past, before=before)
        if summary is None or not summary.text:
            return None
        lines = summary.text.splitlines()
        while lines:
            text = "\n".join([HEADING, *lines])
            if measure(text) <= room:
                return Part("summary", text, (summary.through,))
            lines.pop(0)
        return None


class RollingSummary:
    """The newest turns that fit, and a summary of the rest. `others` are additions that stand after it."""

    def __init__(
        self, summaries: Summaries, *, summarise: Summarise | None = None, others: Sequence[Addition] = ()
    ) -> None:
        """With `summarise` a summary that is missing is made before the prompt is (in a chain that has no background);
        without it, the prompt goes on with what there is.
        """
        self._summaries = summaries
        self._summarise = summarise
        self._additions = (SummaryAddition(summaries), *others)

    name = "summary"

    def prepare(self, request: Request) -> Prepared:
        """The newest turns and the summary."""
        if self._summarise is not None:
            upto = left_out_before(request)
            words = words_for(request.budget)
            advance(self._summaries, request.past, upto=upto, summarise=self._summarise, most_words=words)
        return prepare(request, additions=self._additions)


def advance(
    summaries: Summaries,
    past: Past,
    *,
    upto: int,
    summarise: Summarise,
    most_words: int,
    most_steps: int | None = None,
) -> int:
    """Make the summaries that are missing before the place `upto`; returns how many were made.

    Each is made of the one before it and of the whole turns that follow, so a long conversation costs no more per turn
    than a short one. `most_steps` bounds the work of one call; the next call goes on from there.
    """
    made = 0
    while most_steps is None or made < most_steps:
        known = summaries.latest(past, before=upto)
        start = known.depth + 1 if known is not None else 0
        portion = _whole_turns(past.stretch(start, min(start + MESSAGES_AT_ONCE, upto)))
        if not portion:
            return made
        text = summarise(known.text if known else "", [one.message for one in portion], most_words)
        summaries.keep(Summary(portion[-1].id, portion[-1].depth, text))
        made += 1
    return made


def words_for(budget: int) -> int:
    """How many words a summary may have in prompts of `budget` tokens: two tokens to a word, half of the additions."""
    return max(8, int(budget * ADDITIONS_SHARE / 2 / 2))


def is_on(past: Past, node_id: str, depth: int) -> bool:
    """Does the path go through this message at this place?"""
    found = at(past, depth)
    return found is not None and found.id == node_id


def _whole_turns(said: Sequence[Said]) -> list[Said]:
    """The stretch up to the end of its last reply, so that no turn is summarised by halves."""
    ends = [place for place, one in enumerate(said) if one.message.role != "user"]
    return list(said[: ends[-1] + 1]) if ends and turns_of(said) else []
