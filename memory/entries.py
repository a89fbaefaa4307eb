"""What one row of somebody else's file says, in our words: replies that were made elsewhere, and judgements of them.

Ids follow from the content, so the same row gives the same ids in any file and on any day. The versions that wrote the
replies are named ``imported``, or ``imported:<model>`` where the row names it, and can never be mistaken for one of
ours; raters appear as hashes of what the file calls them. This module reads no file and no database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from memory.schema import (
    Comparison,
    Judgement,
    Label,
    LabeledComparison,
    Message,
    Ranking,
    Rating,
    Side,
    Turn,
)

Prompt = tuple[Message, ...]


class BadRow(ValueError):
    """A row cannot be taken; the message says why."""


@dataclass(frozen=True)
class Entry:
    """The replies and judgements of one row. A comparison comes along with its answer."""

    turns: tuple[Turn, ...]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True)
class Reply:
    """A reply as a row tells it; `model` and `made_at` (Unix seconds) where the row names them."""

    text: str
    model: str = ""


@dataclass(frozen=True)
class Origin:
    """Where a row comes from: whose judgement it is and when, which dialogue, and the clock for what is not told."""

    rater: str
    now: float
    dialogue: str = ""
    created_at: float | None = None

    @property
    def time(self) -> float:
        """When the judgement was made, as far as is known."""
        return self.now if self.created_at is None else self.created_at


def rater_named(name: str) -> str:
    """The rater under which somebody of a file is remembered: a hash, never the name."""
    return f"imported-{_digest('rater', name)[:16]}"


def thumb(
    prompt: Prompt,
    reply: Reply,
    liked: bool,
    origin: Origin,
    *,
    reasons: Sequence[str] = (),
    comment: str = "",
) -> Entry:
    """A thumb on one reply."""
    turn = turn_of(prompt, reply, origin)
    value = 1 if liked else -1
    said = Rating(turn.id, value, origin.rater, origin.time, tuple(reasons), comment)  # type: ignore[arg-type]
    return Entry((turn,), (said,))


def choice(
    prompt: Prompt,
    pair: tuple[Reply, Reply],
    label: Label,
    origin: Origin,
    *,
    shown_first: Side = "A",
    seconds: float = 0.0,
) -> Entry:
    """Which of two replies is better: ``A`` is the first of `pair`. The letters are put in the order of the replies'
    ids, so that the same two replies make the same question whichever came first.
    """
    turns = tuple(turn_of(prompt, reply, origin) for reply in pair)
    if turns[0].id == turns[1].id:
        raise BadRow("both replies are the same, so there is nothing to choose")
    asked = Comparison(
        id=f"imported-{_digest('comparison', *sorted(turn.id for turn in turns))[:32]}",
        conversation_id=turns[0].conversation_id,
        prompt=prompt,
        turn_A=turns[0].id,
        turn_B=turns[1].id,
        completion_A=turns[0].completion,
        completion_B=turns[1].completion,
        version_A=turns[0].policy_version,
        version_B=turns[1].policy_version,
        shown_first=shown_first,
        created_at=origin.time,
    )
    answer = LabeledComparison(asked, label, origin.rater, seconds, origin.time)
    return Entry(turns, (answer if turns[0].id < turns[1].id else answer.swap(),))


def ranking(prompt: Prompt, replies: Sequence[Reply], origin: Origin) -> Entry:
    """Replies to one prompt, best first."""
    turns = tuple(turn_of(prompt, reply, origin) for reply in replies)
    ids = tuple(turn.id for turn in turns)
    if len(set(ids)) < len(ids) or len(ids) < 2:
        raise BadRow("a ranking needs two or more different replies")
    return Entry(turns, (Ranking(ids, origin.rater, origin.time),))


def turn_of(prompt: Prompt, reply: Reply, origin: Origin) -> Turn:
    """The reply as a turn. Raises `BadRow` where there is no question or no reply."""
    if not any(message.role == "user" and message.content.strip() for message in prompt):
        raise BadRow("the prompt has no message of a user")
    if prompt[-1].role != "user":
        raise BadRow(f"the prompt ends with a message of role {prompt[-1].role!r}; expected the user's")
    if not reply.text.strip():
        raise BadRow("a reply is empty")
    conversation = _conversation_of(prompt, origin)
    version = f"imported:{'_'.join(reply.model.split())}" if reply.model.strip() else "imported"
    spoken = json.dumps([[message.role, message.content] for message in prompt])
    return Turn(
        id=f"imported-{_digest('turn', conversation, version, spoken, reply.text)[:32]}",
        conversation_id=conversation,
        prompt=prompt,
        completion=reply.text,
        policy_version=version,
        fingerprint="",
        sampling={},
        prompt_tokens=0,
        completion_tokens=0,
        finish="stop",
        created_at=origin.time,
    )


def _conversation_of(prompt: Prompt, origin: Origin) -> str:
    """The dialogue that the file names; else all rows that begin with the same words are one conversation, so that no
    split can separate a dialogue from its continuation."""
    opening = next(message.content for message in prompt if message.role == "user")
    named = ("dialogue", origin.dialogue) if origin.dialogue else ("opening", opening)
    return f"imported-{_digest(*named)[:32]}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
