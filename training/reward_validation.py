"""How good is a reward model on what it was not trained on, and is that good enough to optimize a policy against?

Pure functions of rewards. Below the bar the answer is a sentence with the numbers and with what would help. It trains
nothing and knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from training.judge import wilson
from training.preference_losses import calibration_error, kendall, pearson, spearman
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Scored:
    """An ordering with its rewards (best first) and the lengths of its replies in tokens."""

    rewards: tuple[float, ...]
    tokens: tuple[int, ...]
    tied: bool = False


@dataclass(frozen=True)
class RewardReport:
    """What was measured on held-out orderings. None is what could not be, for want of data.

    `accuracy` is the share of decided pairs in which the preferred reply has the higher reward, with the 95 %
    interval after Wilson; a ranking counts with all its pairs. `spearman` and `kendall` are means over rankings of
    three or more. `calibration_error` compares the probability of a choice, sigmoid of the lead, with how often it
    was so. `length_correlation` is that of reward and length within a prompt, `length_accuracy` the accuracy of "the
    longer one is better": a reward model that knows length only is as good as that, or as its opposite. `tied_lead`
    is the mean absolute lead in pairs that people called equal, `lead` that in decided ones.
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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RewardReport:
        """The report back from `to_dict`."""
        return cls(**values)


def validate(scored: Sequence[Scored]) -> RewardReport:
    """Measure rewards against what people said."""
    decided = [item for item in scored if not item.tied]
    leads = [a - b for item in decided for a, b in combinations(item.rewards, 2)]
    longer = [a - b for item in decided for a, b in combinations(item.tokens, 2) if a != b]
    right = [lead > 0 for lead in leads]
    low, high = wilson(sum(right), len(right))
    rankings = [item for item in decided if len(item.rewards) > 2]
    ties = [abs(item.rewards[0] - item.rewards[1]) for item in scored if item.tied]
    # A reply's place counts from the best, so the best has the highest place.
    places = [list(range(len(item.rewards), 0, -1)) for item in rankings]
    return RewardReport(
        orderings=len(scored),
        pairs=len(leads),
        accuracy=_mean(right),
        accuracy_low=low if math.isfinite(low) else None,
        accuracy_high=high if math.isfinite(high) else None,
        rankings=len(rankings),
        spearman=_mean([spearman(item.rewards, place) for item, place in zip(rankings, places, strict=True)]),
        kendall=_mean([kendall(item.rewards, place) for item, place in zip(rankings, places, strict=True)]),
        calibration_error=calibration_error(
            [1 / (1 + math.exp(-min(abs(lead), 700.0))) for lead in leads], right
        )
        if leads
        else None,
        length_correlation=pearson(*_within_prompts(scored)) if len(scored) > 1 else None,
        length_accuracy=_mean([lead > 0 for lead in longer]),
        lead=_mean([abs(lead) for lead in leads]),
        ties=len(ties),
        tied_lead=_mean(ties),
    )


def problem_with(report: RewardReport, settings: TrainingSettings) -> str:
    """Why PPO may not use a reward model with this report; empty if it may."""
    if report.accuracy is None or report.accuracy_low is None:
        return (
            "The reward model could not be examined: no comparison was kept aside. PPO needs one that is known to "
            "order replies as people do. Collect more comparisons, in new conversations."
        )
    found = (
        f"it orders {report.accuracy:.0%} of {report.pairs} held-out comparisons as people did (with 95 % certainty "
        f"{report.accuracy_low:.0%} to {report.accuracy_high or 1.0:.0%})"
    )
    advice = "Collect more comparisons, or retrain with --method dpo, which needs no reward model."
    if report.accuracy_low <= 0.5:
        return f"The reward model is not surely better than a coin: {found}. PPO would learn its errors. {advice}"
    if report.accuracy < settings.min_reward_accuracy:
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


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
