"""How often each kind of thing is said in the corpus: kinds of subject, intents, follow-ups, terse replies.

Only shares and weights; knows nothing of what is said. A `Mix` is what one stretch of training may choose; the rest is
the same throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM_RATE = 0.22
WRONG_RATE, RUDE_RATE = 0.008, 0.006
TURNS = ((1, 2, 3, 4, 5, 6), (36, 26, 17, 10, 6, 5))
"""Numbers of turns in a dialogue, and their weights."""
TOPIC_INTENTS = {
    "what": 14, "fact": 19, "uses": 8, "tips": 9, "example": 6, "several_facts": 4, "several_tips": 3, "why": 8,
    "ask": 22, "statement": 4, "compare": 4,
}  # fmt: skip
FOLLOW_UP_INTENTS = {
    "ask": 24, "more": 13, "fact": 6, "tip": 8, "another_tip": 6, "uses": 7, "example": 6, "why": 14, "what": 2,
    "shorter": 5, "list": 3, "formal": 2, "casual": 2, "again": 2, "and": 7, "thanks": 5,
}  # fmt: skip


@dataclass(frozen=True)
class Mix:
    """What a stretch of training has more or less of."""

    topic: int = 60
    """Weight of topics among new subjects; so for the next three."""
    talk: int = 29
    sum: int = 6
    story: int = 5
    unknown: int = 62
    """Weight, among the exchanges of `talk`, of questions about things that the model does not know."""
    everyday: bool = False
    """Whether everyday things are among those."""
    terse: float = 0.0
    """Share of replies that say one thing and nothing around it."""

    @property
    def kinds(self) -> dict[str, int]:
        return {"topic": self.topic, "talk": self.talk, "sum": self.sum, "story": self.story}
