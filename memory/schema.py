"""The data contract: what is remembered, in the words of the preference-learning field.

Frozen values only. This module knows no database, no model, no clock and no random source: ids and times arrive as
arguments. Times are Unix seconds (UTC). Sides of a comparison are the letters ``A`` and ``B``; which of them stood
first on the page is recorded in ``shown_first``. Message trees, turns and judgements are described by design: nothing
said is overwritten, and a changed mind is a later event about the same target by the same rater.

Only a person's judgement is feedback. What a person *did* (retry, stop) and what went wrong (error,
disconnect) are `Occurrence`s, never ratings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Label = Literal["A", "B", "tie", "both_bad"]
Side = Literal["A", "B"]
Finish = Literal["stop", "length", "cancelled", "error"]
Criterion = Literal["helpful", "harmless", "honest", "clear"]

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
LABELS: tuple[Label, ...] = ("A", "B", "tie", "both_bad")
CRITERIA: tuple[Criterion, ...] = ("helpful", "harmless", "honest", "clear")
BASE_VERSION = "base"
"""The policy version that means "no adapter": the base model alone."""

_SWAPPED: dict[Label, Label] = {"A": "B", "B": "A", "tie": "tie", "both_bad": "both_bad"}


@dataclass(frozen=True)
class Message:
    """One message of a chat: who speaks and what is said."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"Message role is {self.role!r}; expected one of {', '.join(ROLES)}.")


@dataclass(frozen=True)
class Conversation:
    """A person's conversation; `head` is the node at the end of the path being shown (None while empty). `memory` and
    `elsewhere`: see `Conversations.remember_by`; `shared` is the secret word of its read-only link."""

    id: str
    owner: str
    title: str
    system_prompt: str
    head: str | None
    created_at: float
    updated_at: float
    memory: str = ""
    elsewhere: bool = False
    pinned: bool = False
    shared: str | None = None


@dataclass(frozen=True)
class Node:
    """A message in the tree of a conversation. Siblings share a `parent`; an assistant's node names its `turn_id`."""

    id: str
    conversation_id: str
    parent: str | None
    message: Message
    turn_id: str | None
    created_at: float


@dataclass(frozen=True)
class Turn:
    """One reply of the policy, with everything needed to train on it or to audit it.

    `prompt` is what the policy actually saw after windowing, system message included. `policy_version` and
    `fingerprint` name the adapter that answered. `sampling` holds temperature, top_p, max_new_tokens, seed.
    """

    id: str
    conversation_id: str
    prompt: tuple[Message, ...]
    completion: str
    policy_version: str
    fingerprint: str
    sampling: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int
    finish: Finish
    created_at: float


@dataclass(frozen=True)
class Rating:
    """A thumb on one turn: +1 or -1. TRL's *unpaired preference* is ``{prompt, completion, label: value >
    0}``."""

    turn_id: str
    value: Literal[-1, 1]
    rater: str
    created_at: float
    reasons: tuple[str, ...] = ()
    comment: str = ""

    def __post_init__(self) -> None:
        if self.value not in (-1, 1):
            raise ValueError(f"Rating value is {self.value!r}; expected -1 (thumb down) or 1 (thumb up).")


@dataclass(frozen=True)
class Comparison:
    """A question put to a rater: which of two replies to the same prompt is better?"""

    id: str
    conversation_id: str
    prompt: tuple[Message, ...]
    turn_A: str
    turn_B: str
    completion_A: str
    completion_B: str
    version_A: str
    version_B: str
    shown_first: Side
    created_at: float

    def swap(self) -> Comparison:
        """The same question with the letters exchanged. Swapping twice gives the comparison back."""
        return replace(
            self,
            turn_A=self.turn_B,
            turn_B=self.turn_A,
            completion_A=self.completion_B,
            completion_B=self.completion_A,
            version_A=self.version_B,
            version_B=self.version_A,
            shown_first="B" if self.shown_first == "A" else "A",
        )


@dataclass(frozen=True)
class LabeledComparison:
    """A rater's answer to a comparison. Ties and both-bad make no training pair, are kept, and count.

    `seconds` is the time from both sides being shown to the vote. `early` says that the vote came before both
    replies had ended; the completions kept are the whole ones.
    """

    comparison: Comparison
    label: Label
    rater: str
    seconds: float
    created_at: float
    early: bool = False

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"Comparison label is {self.label!r}; expected one of {', '.join(LABELS)}.")

    def swap(self) -> LabeledComparison:
        """The same answer with the letters exchanged; ties stay ties."""
        return replace(self, comparison=self.comparison.swap(), label=_SWAPPED[self.label])

    @property
    def chosen(self) -> str | None:
        """The preferred completion, or None where neither was preferred."""
        return {"A": self.comparison.completion_A, "B": self.comparison.completion_B}.get(self.label)

    @property
    def rejected(self) -> str | None:
        """The other completion, or None where neither was preferred."""
        return {"A": self.comparison.completion_B, "B": self.comparison.completion_A}.get(self.label)


@dataclass(frozen=True)
class Ranking:
    """k replies to one prompt, best first. All of its pairs stay in one group, for the listwise loss."""

    turn_ids: tuple[str, ...]
    rater: str
    created_at: float

    def __post_init__(self) -> None:
        if len(self.turn_ids) < 2 or len(set(self.turn_ids)) != len(self.turn_ids):
            raise ValueError(
                f"Ranking is {self.turn_ids!r}; expected two or more different turns, best first."
            )


@dataclass(frozen=True)
class Score:
    """A mark from 1 (poor) to 5 (excellent) on one criterion."""

    turn_id: str
    criterion: Criterion
    value: int
    rater: str
    created_at: float

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise ValueError(f"Score criterion is {self.criterion!r}; expected one of {', '.join(CRITERIA)}.")
        if self.value not in range(1, 6):
            raise ValueError(f"Score is {self.value!r}; expected a whole number from 1 to 5.")


@dataclass(frozen=True)
class Critique:
    """What is good or bad about a reply, in the rater's words."""

    turn_id: str
    text: str
    rater: str
    created_at: float


@dataclass(frozen=True)
class Correction:
    """A reply as a person would have written it: chosen over the original, and an SFT row of its own."""

    turn_id: str
    text: str
    rater: str
    created_at: float


Judgement = Rating | LabeledComparison | Ranking | Score | Critique | Correction


@dataclass(frozen=True)
class Occurrence:
    """Something that happened and is nobody's judgement: retry, stop, error, disconnect, refused adapter."""

    kind: str
    target: str
    actor: str
    created_at: float
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FeedbackCounts:
    """How much has been collected. Only standing judgements count: the latest of each rater, retractions
    removed."""

    turns: int
    turns_today: int
    ratings_up: int
    ratings_down: int
    comparisons_decided: int
    ties: int
    both_bad: int
    rankings: int
    scores: int
    critiques: int
    corrections: int


RunState = Literal[
    "queued", "training", "evaluating", "published", "rejected", "refused", "failed", "cancelled"
]
FINAL_STATES: tuple[RunState, ...] = ("published", "rejected", "refused", "failed", "cancelled")


@dataclass(frozen=True)
class Run:
    """One retraining, from queued to its end. `progress` is 0..1 over the whole run, `message` a plain
    sentence.

    `refused` means that training never began (too little data); `rejected` that the gate said no. `folder`
    holds metrics.jsonl, log.txt and report.json. `heartbeat_at` lets a reader tell a dead trainer from a slow
    one.
    """

    id: str
    state: RunState
    method: str
    parent_version: str
    version: str | None
    progress: float
    message: str
    folder: str
    requested_by: str
    cancel_requested: bool
    pid: int | None
    created_at: float
    heartbeat_at: float
    ended_at: float | None


@dataclass(frozen=True)
class Promotion:
    """From this moment on `version` is to be served. A rollback is a promotion of an earlier version."""

    sequence: int
    version: str
    actor: str
    reason: str
    created_at: float
