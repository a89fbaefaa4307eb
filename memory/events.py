"""Judgements as rows of the log and back: what kind an event is, what it is about, and what it carries.

Pure functions. The key of a judgement is (kind, target, criterion, rater): a later event with the same key
replaces the earlier one in every reader. Nothing here reads or writes a database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from memory.schema import (
    Comparison,
    Correction,
    Critique,
    Judgement,
    LabeledComparison,
    Message,
    Occurrence,
    Ranking,
    Rating,
    Score,
    Turn,
)

KINDS: dict[type[Any], str] = {
    Rating: "rating",
    LabeledComparison: "comparison",
    Ranking: "ranking",
    Score: "score",
    Critique: "critique",
    Correction: "correction",
}
"""The kind under which each judgement is logged and retracted."""


def kind_of(judgement: Judgement) -> str:
    """rating, comparison, ranking, score, critique or correction."""
    return KINDS[type(judgement)]


def target_of(judgement: Judgement) -> str:
    """What the judgement is about: a turn's id, a comparison's id, or for a ranking the digest of its
    turns."""
    if isinstance(judgement, LabeledComparison):
        return judgement.comparison.id
    if isinstance(judgement, Ranking):
        return ranking_target(judgement.turn_ids)
    return judgement.turn_id


def ranking_target(turn_ids: tuple[str, ...]) -> str:
    """The target of any ranking of these turns, in whatever order: ranking the same replies again
    replaces."""
    return hashlib.sha256("\n".join(sorted(turn_ids)).encode("utf-8", "surrogatepass")).hexdigest()


def criterion_of(judgement: Judgement) -> str:
    """The criterion of a score; empty for every other kind."""
    return judgement.criterion if isinstance(judgement, Score) else ""


def value_of(judgement: Judgement) -> str:
    """The short value by which judgements are counted: -1, 1, A, B, tie, both_bad, 1..5, or nothing."""
    match judgement:
        case Rating(value=value) | Score(value=value):
            return str(value)
        case LabeledComparison(label=label):
            return label
        case _:
            return ""


def payload_of(judgement: Judgement) -> dict[str, Any]:
    """What the event carries beside its key and time."""
    match judgement:
        case Rating():
            return {
                "value": judgement.value,
                "reasons": list(judgement.reasons),
                "comment": judgement.comment,
            }
        case LabeledComparison():
            return {"label": judgement.label, "seconds": judgement.seconds, "early": judgement.early}
        case Ranking():
            return {"turn_ids": list(judgement.turn_ids)}
        case Score():
            return {"value": judgement.value}
        case Critique() | Correction():
            return {"text": judgement.text}


def judgement_from(row: Mapping[str, Any] | RowMapping, comparison: Comparison | None) -> Judgement:
    """The judgement of an event row; `comparison` is the question where the row answers one."""
    about: dict[str, Any] = {"rater": row["rater"], "created_at": row["created_at"]}
    payload = row["payload"]
    match row["kind"]:
        case "rating":
            reasons = tuple(payload["reasons"])
            return Rating(
                row["target"], payload["value"], reasons=reasons, comment=payload["comment"], **about
            )
        case "comparison" if comparison is not None:
            return LabeledComparison(comparison, **payload, **about)
        case "ranking":
            return Ranking(tuple(payload["turn_ids"]), **about)
        case "score":
            return Score(row["target"], row["criterion"], payload["value"], **about)
        case "critique":
            return Critique(row["target"], payload["text"], **about)
        case "correction":
            return Correction(row["target"], payload["text"], **about)
        case kind:
            raise ValueError(f"Event kind is {kind!r}; expected one of {', '.join(KINDS.values())}.")


def occurrence_from(row: RowMapping) -> Occurrence:
    """The occurrence of an event row."""
    return Occurrence(row["kind"], row["target"], row["rater"], row["created_at"], row["payload"])


def turn_values(turn: Turn) -> dict[str, Any]:
    """The columns of `turns` for a turn."""
    return dict(vars(turn)) | {"prompt": _pack(turn.prompt)}


def turn_from(row: RowMapping) -> Turn:
    """The turn of a row of `turns`."""
    values = {name: row[name] for name in Turn.__dataclass_fields__}
    return Turn(**values | {"prompt": _unpack(row["prompt"])})


def comparison_values(comparison: Comparison) -> dict[str, Any]:
    """The columns of `comparisons` for a comparison."""
    values = {name.lower(): value for name, value in vars(comparison).items()}
    return values | {"prompt": _pack(comparison.prompt)}


def comparison_from(row: RowMapping) -> Comparison:
    """The comparison of a row of `comparisons`."""
    values = {name: row[name.lower()] for name in Comparison.__dataclass_fields__}
    return Comparison(**values | {"prompt": _unpack(row["prompt"])})


def _pack(prompt: tuple[Message, ...]) -> list[list[str]]:
    return [[message.role, message.content] for message in prompt]


def _unpack(prompt: list[list[Any]]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in prompt)
