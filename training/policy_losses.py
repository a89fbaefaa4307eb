"""The losses of policy optimization as pure functions of log-probabilities, values, returns and advantages.

Everything is [rows, actions] with a mask of the same shape: an action is a token, or the whole reply in sequence mode.
Means run over all unmasked actions of a batch together. Log-probabilities are in nats and belong to one distribution,
the one that was sampled from. Sources: Schulman et al. 2017 ("PPO"), equation 7; Schulman 2020, "Approximating KL
Divergence"; Ziegler et al. 2019, section 2.2. It knows no model and no reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KlEstimator = Literal["k1", "k3"]


@dataclass(frozen=True)
class PolicyLoss:
    """A loss to minimise, and what it looked like: shares and means over the unmasked actions."""

    loss: Tensor
    clip_fraction: float
    ratio: float
    approximate_kl: float


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over unmasked actions; 0 where all are masked."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """`values` with variance 1 and, unless told otherwise, mean 0 over the unmasked actions; masked ones become 0.

    The variance is the unbiased one (n - 1). Fewer than two actions have none and come back centred only.
    """
    mean, count = masked_mean(values, mask), int(mask.sum())
    centred = values - mean
    if count > 1:
        variance = torch.where(mask, centred.square(), 0.0).sum() / (count - 1)
        centred = centred * (variance + 1e-8).rsqrt()
    return torch.where(mask, centred if shift_mean else centred + mean, 0.0)


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, clip: float
) -> PolicyLoss:
    """-mean min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A) with ratio = exp(logprobs - old_logprobs).

    `clip_fraction` counts the actions at which the clipped term is the smaller one, so that nothing is learned there.
    `approximate_kl` is k2, half the mean squared log-ratio, which costs no second forward pass.
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio = log_ratio.exp()
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    with torch.no_grad():
        share = masked_mean((clipped > plain).float(), mask)
        spread = masked_mean(log_ratio.square(), mask) / 2
        mean_ratio = masked_mean(ratio, mask)
    loss = masked_mean(torch.maximum(plain, clipped), mask)
    return PolicyLoss(loss, float(share), float(mean_ratio), float(spread))


def reinforce_loss(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-mean A * log pi (Williams 1992); the baseline has been taken off the advantages already."""
    return masked_mean(-advantages * logprobs, mask)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float
) -> tuple[Tensor, float]:
    """Half the mean of max((V - R)^2, (clip(V, old - clip, old + clip) - R)^2), and the share of clipped actions.

    A value may not run further than `clip` from what it was when the replies were written, and gains nothing by it.
    """
    near = torch.maximum(torch.minimum(values, old_values + clip), old_values - clip)
    plain, clipped = (values - returns).square(), (near - returns).square()
    share = masked_mean((clipped > plain).float(), mask)
    return masked_mean(torch.maximum(plain, clipped), mask) / 2, float(share)


def kl_terms(logprobs: Tensor, reference_logprobs: Tensor, *, estimator: KlEstimator) -> Tensor:
    """Per action, an unbiased estimate of KL(pi || reference) from an action drawn from pi.

    k1 = log(pi / ref) may be negative and varies much; k3 = ref/pi - 1 - log(ref / pi) never is and varies less.
    """
    log_ratio = logprobs - reference_logprobs
    return log_ratio if estimator == "k1" else torch.expm1(-log_ratio) + log_ratio


def entropy(logprobs: Tensor) -> Tensor:
    """Entropy in nats of the distributions whose log-probabilities lie along the last dimension."""
    return -(logprobs.exp() * logprobs).sum(-1)


def next_coefficient(
    coefficient: float, *, measured: float, target: float, replies: int, horizon: int
) -> float:
    """The KL coefficient for the next batch, steered towards `target` nats a reply (Ziegler et al. 2019, section 2.2).

    coefficient * (1 + clip(measured / target - 1, -0.2, 0.2) * replies / horizon)
    """
    error = min(max(measured / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * replies / horizon)
