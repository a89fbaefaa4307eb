"""How good is a reward model on what it was not trained on, and is that good enough to optimize a policy against?

Pure functions of rewards. Below the bar the answer is a sentence with the numbers and with what would help. It trains
nothing and knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from statistics import fmean
from typing import Any

from training.judge import wilson
from training.preference_losses import (
    CalibrationBin,
    calibration_error,
    kendall,
    pearson,
    ranks,
    reliability,
    spearman,
)
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Scored:
    """An ordering with its rewards (best first) and the lengths of its replies in tokens; or one reply with a thumb.

    `strangeness` says how unlike its prompt is to those of the training part, from 0 (None: not known).
    """

    rewards: tuple[float, ...]
    tokens: tuple[int, ...]
    tied: bool = False
    liked: bool | None = None
    strangeness: float | None = None


@dataclass(frozen=True)
class RewardReport:
    """What was measured on held-out orderings. None is what could not be, for want of data.

    `accuracy` is the share of decided pairs in which the preferred reply has the higher reward, with the 95 %
    interval after Wilson; a ranking counts with all its pairs. `spearman` and `kendall` are means over rankings of
    three or more. `calibration_error` compares the probability of a choice, sigmoid of the lead, with how often it
    was so. `length_correlation` is that of reward and length within a prompt, `length_accuracy` the accuracy of "the
    longer one is better": a reward model that knows length only is as good as that, or as its opposite.
    `length_controlled_accuracy` is the mean of two accuracies, on pairs whose preferred reply is the longer and on
    those whose is the shorter: one half for whatever knows length only. `tied_lead` is the mean absolute lead in pairs
    that people called equal, `lead` that in decided ones. `reliability` are the bins of the calibration error.

    `thumb_accuracy`, with its 95 % interval after Hanley and McNeil (1982), is the chance that a reply with a thumb up
    has a higher reward than one with a thumb down, whatever their prompts. `strange_accuracy` is the accuracy on the
    half of the decided orderings whose prompts are least like those of the training part. `edited` says by the name of
    a damage how often a preferred reply has a higher reward than its damaged copy (`training.reward_robustness`).
    """

    orderings: int
    pairs: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    rankings: int
    spearman: float | None
    kendall: float | None
    calibration_error: float | None
    length_correlation: float | None
    length_accuracy: float | None
    lead: float | None
    ties: int
    tied_lead: float | None
    reliability: tuple[CalibrationBin, ...] = ()
    length_controlled_accuracy: float | None = None
    strange_accuracy: float | None = None
    edited: Mapping[str, float] = field(default_factory=dict)
    thumbs: int = 0
    thumb_accuracy: float | None = None
    thumb_accuracy_low: float | None = None
    thumb_accuracy_high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RewardReport:
        """The report back from `to_dict`."""
        bins = tuple(CalibrationBin(**found) for found in values.get("reliability", ()))
        return cls(**{**values, "reliability": bins})


def validate(scored: Sequence[Scored], *, edited: Mapping[str, float] | None = None) -> RewardReport:
    """Measure rewards against what people said. `edited` is taken over as it is."""
    decided = [item for item in scored if not item.tied and item.liked is None]
    leads = [a - b for item in decided for a, b in combinations(item.rewards, 2)]
    longer = [a - b for item in decided for a, b in combinations(item.tokens, 2) if a != b]
    right = [lead > 0 for lead in leads]
    low, high = wilson(sum(right), len(right))
    rankings = [item for item in decided if len(item.rewards) > 2]
    ties = [abs(item.rewards[0] - item.rewards[1]) for item in scored if item.tied]
    # A reply's place counts from the best, so the best has the highest place.
    places = [list(range(len(item.rewards), 0, -1)) for item in rankings]
    bins = reliability([1 / (1 + math.exp(-min(abs(lead), 700.0))) for lead in leads], right)
    up, down = ([item.rewards[0] for item in scored if item.liked is liked] for liked in (True, False))
    thumb_accuracy, thumb_low, thumb_high = _separation(up, down)
    return RewardReport(
        orderings=len(scored),
        pairs=len(leads),
        accuracy=_mean(right),
        accuracy_low=low if math.isfinite(low) else None,
        accuracy_high=high if math.isfinite(high) else None,
        rankings=len(rankings),
        spearman=_mean([spearman(item.rewards, place) for item, place in zip(rankings, places, strict=True)]),
        kendall=_mean([kendall(item.rewards, place) for item, place in zip(rankings, places, strict=True)]),
        calibration_error=calibration_error(bins) if leads else None,
        length_correlation=pearson(*_within_prompts(scored)) if len(scored) > 1 else None,
        length_accuracy=_mean([lead > 0 for lead in longer]),
        lead=_mean([abs(lead) for lead in leads]),
        ties=len(ties),
        tied_lead=_mean(ties),
        reliability=bins,
        length_controlled_accuracy=_length_controlled(decided),
        strange_accuracy=_on_the_strangest(decided),
        edited=dict(edited or {}),
        thumbs=len(up) + len(down),
        thumb_accuracy=thumb_accuracy,
        thumb_accuracy_low=thumb_low,
        thumb_accuracy_high=thumb_high,
    )


def problem_with(report: RewardReport, settings: TrainingSettings) -> str:
    """Why PPO may not use a reward model with this report; empty if it may.

    It is judged by held-out comparisons, and by thumbs where nobody compared.
    """
    if report.accuracy is not None and report.accuracy_low is not None:
        accuracy, low, high = report.accuracy, report.accuracy_low, report.accuracy_high or 1.0
        does = f"orders {accuracy:.0%} of {report.pairs} held-out comparisons as people did"
    elif report.thumb_accuracy is not None and report.thumb_accuracy_low is not None:
        accuracy, low, high = (
            report.thumb_accuracy,
            report.thumb_accuracy_low,
            report.thumb_accuracy_high or 1.0,
        )
        does = f"puts a held-out liked reply above a disliked one in {accuracy:.0%} ({report.thumbs} thumbs)"
    else:
        return (
            "The reward model could not be examined: no comparison was kept aside, nor thumbs both up and down. PPO "
            "needs one that is known to order replies as people do. Collect more judgements, in new conversations."
        )
    found = f"it {does} (with 95 % certainty {low:.0%} to {high:.0%})"
    advice = "Collect more judgements, or retrain with --method dpo, which needs no reward model."
    if low <= 0.5:
        return f"The reward model is not surely better than a coin: {found}. PPO would learn its errors. {advice}"
    if accuracy < settings.min_reward_accuracy:
        return (
            f"The reward model is not good enough for PPO: {found}, and min_reward_accuracy is "
            f"{settings.min_reward_accuracy:.0%}. {advice}"
        )
    return ""


def _within_prompts(scored: Sequence[Scored]) -> tuple[list[float], list[float]]:
    """Rewards and lengths of all replies, each less the mean of its prompt's: prompts differ in both for other
    reasons."""
    rewards = [reward - fmean(item.rewards) for item in scored for reward in item.rewards]
    tokens = [count - fmean(item.tokens) for item in scored for count in item.tokens]
    return rewards, tokens


def _length_controlled(decided: Sequence[Scored]) -> float | None:
    """The mean of the accuracies on pairs whose preferred reply is the longer, and the shorter; None without either."""
    longer: list[bool] = []
    shorter: list[bool] = []
    for item in decided:
        replies = zip(item.rewards, item.tokens, strict=True)
        for (better, tokens), (worse, other) in combinations(replies, 2):
            if tokens != other:
                (longer if tokens > other else shorter).append(better > worse)
    return (fmean(longer) + fmean(shorter)) / 2 if longer and shorter else None


def _on_the_strangest(decided: Sequence[Scored]) -> float | None:
    """The accuracy on the half with the strangest prompts; None where they do not differ in it."""
    known = [(item.strangeness, item) for item in decided if item.strangeness is not None]
    if len({strangeness for strangeness, _ in known}) < 2:
        return None
    known.sort(key=lambda pair: -pair[0])
    strangest = [item for _, item in known[: (len(known) + 1) // 2]]
    return _mean([a > b for item in strangest for a, b in combinations(item.rewards, 2)])


def _separation(
    up: Sequence[float], down: Sequence[float]
) -> tuple[float | None, float | None, float | None]:
    """The area under the receiver operating characteristic, and its 95 % interval (Hanley and McNeil 1982)."""
    if not up or not down:
        return None, None, None
    order = sorted([(reward, True) for reward in up] + [(reward, False) for reward in down])
    below = ranks([reward for reward, _ in order])
    area = sum(rank for rank, (_, liked) in zip(below, order, strict=True) if liked)
    area = (area - len(up) * (len(up) + 1) / 2) / (len(up) * len(down))
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (len(up) - 1) * (q1 - area**2) + (len(down) - 1) * (q2 - area**2)
    half = 1.96 * math.sqrt(max(variance, 0.0) / (len(up) * len(down)))
    return area, max(0.0, area - half), min(1.0, area + half)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
