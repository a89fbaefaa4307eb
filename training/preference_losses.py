"""What a reward model is trained to do, and how well it does it, as pure functions of rewards.

The pairwise loss is Bradley-Terry with a margin, and its ties are Rao and Kupper's (1967): with rewards r and a
margin m the rater says that y beats z with probability sigmoid(r_y - r_z - m), and that neither does with what is
left over. So one number is at once the lead that a preferred reply should have (Touvron et al. 2023, equation 2) and
half the width of the band in which a rater sees no difference. The listwise loss orders k replies by their
neighbours.

Rewards are in nats of log-odds. It knows no model, no text and no rater.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

_BINS = 10


def pairwise_losses(better: Tensor, worse: Tensor, *, tied: Tensor, margin: float) -> Tensor:
    """The negative log-likelihood [pairs] of what was said of each pair, from rewards [pairs].

    Decided:  -log sigmoid(d - m)  with d = better - worse.  Tied (bool [pairs]):
    -log [1 - sigmoid(d - m) - sigmoid(-d - m)] = -log sigmoid(d - m) - log sigmoid(-d - m) - log(e^{2m} - 1).
    Raises `ValueError` for ties without a margin above 0, under which nothing is ever tied.
    """
    if margin <= 0 and bool(tied.any()):
        raise ValueError(f"The margin is {margin:g}; pairs that were called equal need one above 0.")
    lead = better - worse
    decided = -logsigmoid(lead - margin)
    if not bool(tied.any()):
        return decided
    band = torch.tensor(2 * margin, dtype=lead.dtype, device=lead.device).expm1().log()
    return torch.where(tied, decided - logsigmoid(-lead - margin) - band, decided)


def listwise_loss(rewards: Tensor) -> Tensor:
    """-sum_i log sigmoid(r_i - r_{i+1}) for the rewards [k] of k replies, best first; for two it is Bradley-Terry's.

    Neighbours are taken as independent choices, so k replies weigh as k - 1 comparisons.
    """
    if rewards.ndim != 1 or len(rewards) < 2:
        raise ValueError(
            f"The rewards have shape {tuple(rewards.shape)}; expected those of two or more replies."
        )
    return -logsigmoid(rewards[:-1] - rewards[1:]).sum()


def thumb_losses(rewards: Tensor, liked: Tensor) -> Tensor:
    """The negative log-likelihood [replies] of thumbs (bool `liked`): up with probability sigmoid(reward).

    It is Bradley-Terry's for a reply against one of reward 0, which a rater has in mind.
    """
    return -logsigmoid(torch.where(liked, rewards, -rewards))


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """The mean of `losses` by `weights` (both [n], weights at least 0 and not all 0)."""
    total = weights.sum()
    if bool((weights < 0).any()) or not float(total) > 0:
        raise ValueError(f"The weights are {weights.tolist()}; expected none below 0 and one above.")
    return (losses * weights).sum() / total


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation in -1..1 (Spearman 1904), ties at their mean rank; 0 where one side never varies."""
    return pearson(ranks(first), ranks(second))


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b in -1..1 (Kendall 1945): concordant minus discordant pairs over those not tied; 0 without any."""
    x, y = (torch.tensor(list(values), dtype=torch.float64) for values in (first, second))
    above = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    signs_x, signs_y = (torch.sign(v[:, None] - v[None, :])[above] for v in (x, y))
    scale = (signs_x.square().sum() * signs_y.square().sum()).sqrt()
    return float((signs_x * signs_y).sum() / scale) if float(scale) else 0.0


def pearson(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlation in -1..1; 0 where one side never varies."""
    x, y = (torch.tensor(list(values), dtype=torch.float64) for values in (first, second))
    if len(x) < 2:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    scale = float((x.square().sum() * y.square().sum()).sqrt())
    return float((x * y).sum()) / scale if scale > 1e-12 else 0.0


@dataclass(frozen=True)
class CalibrationBin:
    """Predictions of like confidence: how sure they were on average, the share that came true, and how many."""

    confidence: float
    correct: float
    count: int


def reliability(
    confidences: Sequence[float], outcomes: Sequence[bool], *, bins: int = _BINS
) -> tuple[CalibrationBin, ...]:
    """The reliability diagram: equal bins of `confidences` in 0..1, in order, without the empty ones."""
    inside: dict[int, list[tuple[float, bool]]] = {}
    for confidence, outcome in zip(confidences, outcomes, strict=True):
        inside.setdefault(min(int(confidence * bins), bins - 1), []).append((confidence, outcome))
    return tuple(
        CalibrationBin(fmean(sure for sure, _ in pairs), fmean(right for _, right in pairs), len(pairs))
        for _, pairs in sorted(inside.items())
    )


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3): the mean gap, over bins weighted by their size, between
    how sure it was and how often it was right. 0 for nothing.
    """
    total = sum(found.count for found in bins)
    return sum(found.count * abs(found.correct - found.confidence) for found in bins) / max(total, 1)


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    order = sorted(values)
    places: dict[float, list[int]] = {}
    for place, value in enumerate(order, 1):
        places.setdefault(value, []).append(place)
    return [fmean(places[value]) for value in values]
