"""What an evaluation found: frozen figures with their meaning in plain words, to and from JSON.

The meanings are the documentation of the figures and what the page shows beside them. This module measures
nothing and decides nothing; it loads no torch, so that a page can read a report without a model. A figure
that could not be measured is None, and stays None in JSON (a NaN becomes None): whoever decides on it must
fail closed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


def _means(meaning: str) -> dict[str, str]:
    return {"meaning": meaning}


@dataclass(frozen=True)
class ReplyFigures:
    """What one version's replies to the held-out prompts look like."""

    replies: int = field(metadata=_means("How many replies were sampled."))
    mean_tokens: float | None = field(metadata=_means("Average length of a reply, in tokens."))
    fluency: float | None = field(
        metadata=_means(
            "How natural the base model finds the replies: mean log-probability a token, in nats."
        )
    )
    implausible: float | None = field(
        metadata=_means(
            "Share of replies with a token that the base model holds for all but impossible where it stands."
        )
    )
    repetition: float | None = field(
        metadata=_means("Share of three-word sequences that a reply says more than once.")
    )
    identical: float | None = field(
        metadata=_means("Share of replies that are the same, word for word, as one to another prompt.")
    )
    distinct_2: float | None = field(
        metadata=_means("Different two-word sequences, as a share of all of them over all replies.")
    )
    empty: float | None = field(metadata=_means("Share of replies without any text."))
    punctuation: float | None = field(metadata=_means("Share of replies that hold no letter and no digit."))
    truncated: float | None = field(metadata=_means("Share of replies cut off by the length limit."))
    garbled: float | None = field(
        metadata=_means("Share of replies in which letters and digits are the smaller part.")
    )
    degenerate: float | None = field(
        metadata=_means("Share of replies that are empty, bare punctuation, cut off, or not words.")
    )


@dataclass(frozen=True)
class SampleReply:
    """One held-out prompt, answered by each version. `preferred` is the judge's probability that the
    candidate is better.
    """

    prompt: str
    candidate: str
    served: str
    base: str
    preferred: float | None


@dataclass(frozen=True)
class EvaluationReport:
    """The candidate against what is served and against the base, on conversations kept aside."""

    served_version: str = field(metadata=_means("The version that the candidate would replace."))
    training_pairs: int = field(
        metadata=_means("Judgements by people that the candidate was trained on: pairs and thumbs.")
    )
    heldout_pairs: int = field(
        metadata=_means(
            "Pairs kept aside, which the candidate never saw; of thumbs, a liked reply beside a disliked one."
        )
    )
    heldout_prompts: int = field(
        metadata=_means("Different prompts kept aside, which every version answered.")
    )
    preference_accuracy: float | None = field(
        metadata=_means("Share of held-out pairs that the candidate orders as people did.")
    )
    preference_accuracy_low: float | None = field(metadata=_means("Lower end of its 95 % interval."))
    preference_accuracy_high: float | None = field(metadata=_means("Upper end of its 95 % interval."))
    judge_accuracy: float | None = field(
        metadata=_means("Share of held-out pairs that the judge of the win rates orders as people did.")
    )
    judge_accuracy_low: float | None = field(metadata=_means("Lower end of its 95 % interval."))
    judge_accuracy_high: float | None = field(metadata=_means("Upper end of its 95 % interval."))
    taste_accuracy: float | None = field(
        metadata=_means("Share of all pairs that a judge who was not fitted on them orders as people did.")
    )
    taste_accuracy_low: float | None = field(metadata=_means("Lower end of its 95 % interval."))
    taste_accuracy_high: float | None = field(metadata=_means("Upper end of its 95 % interval."))
    win_rate_served: float | None = field(
        metadata=_means("How often the judge prefers the candidate's reply to the served version's.")
    )
    win_rate_served_error: float | None = field(metadata=_means("Standard error of that win rate."))
    win_rate_base: float | None = field(
        metadata=_means("How often the judge prefers the candidate's reply to the base model's.")
    )
    win_rate_base_error: float | None = field(metadata=_means("Standard error of that win rate."))
    kl_base: float | None = field(
        metadata=_means("How far the candidate has moved from the base model: nats of KL divergence a reply.")
    )
    kl_served: float | None = field(
        metadata=_means("How far the candidate is from what is served: nats of KL divergence a reply.")
    )
    fluency_drop: float | None = field(
        metadata=_means(
            "How much less natural the base finds the candidate's replies than the served: nats a token."
        )
    )
    forgotten: float | None = field(
        metadata=_means(
            "Share of the tokens that the served version is sure of in its own replies and that the candidate would no "
            "longer choose there."
        )
    )
    on_topic: float | None = field(
        metadata=_means(
            "Share of the candidate's replies that speak of what was asked: in their rarer words they resemble the "
            "served version's replies to the same prompt more than those to any other."
        )
    )
    on_topic_high: float | None = field(metadata=_means("Upper end of its 95 % interval."))
    on_topic_served: float | None = field(
        metadata=_means("The same share for replies of the served version itself.")
    )
    candidate: ReplyFigures = field(metadata=_means("The candidate's replies."))
    served: ReplyFigures = field(metadata=_means("The served version's replies."))
    base: ReplyFigures = field(metadata=_means("The base model's replies."))
    samples: tuple[SampleReply, ...] = field(
        metadata=_means("A handful of prompts with the replies side by side.")
    )

    scale: float = field(
        default=1.0,
        metadata=_means(
            "How much of the trained adapter was kept: it is scaled down as far as its gain allows."
        ),
    )
    judged_pairs: int = field(
        default=0,
        metadata=_means(
            "Further pairs trained on: the model's own replies, ordered by the judge and by no person."
        ),
    )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: plain dicts and lists, None for what was not measured."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationReport:
        """The report back from `to_dict`. Raises `ValueError` that names the fields missing or unknown."""
        known = dict(_checked(cls, values))
        for name in ("candidate", "served", "base"):
            known[name] = ReplyFigures(**_checked(ReplyFigures, known[name]))
        known["samples"] = tuple(SampleReply(**_checked(SampleReply, sample)) for sample in known["samples"])
        return cls(**known)


def meanings(of: type[EvaluationReport] | type[ReplyFigures]) -> dict[str, str]:
    """What each figure means, in words for a person, by field name."""
    return {item.name: item.metadata["meaning"] for item in fields(of)}


def _checked(of: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
    expected = {item.name for item in fields(of)}
    if set(values) != expected:
        raise ValueError(
            f"{of.__name__} has fields {sorted(values)}; missing are {sorted(expected - set(values))}, "
            f"unknown {sorted(set(values) - expected)}. It is from another release."
        )
    return values


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
