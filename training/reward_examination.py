"""Examines a fitted reward model on orderings that it did not see: their rewards, and those of damaged copies.

What is made of the rewards is `training.reward_validation`'s to say. It fits nothing and decides nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from training.reward_fitting import EncodedOrdering
from training.reward_model import RewardModel
from training.reward_robustness import damaged_copies, strangeness
from training.reward_validation import RewardReport, Scored, validate

_MOST_DAMAGED = 200
"""Replies of which damaged copies are made."""


def examine(
    reward_model: RewardModel,
    orderings: Sequence[EncodedOrdering],
    *,
    known: Sequence[EncodedOrdering] = (),
    check: Callable[[], None] = lambda: None,
) -> RewardReport:
    """Validate on `orderings`, which it was not fitted on; `known` are those that it was fitted on."""
    prompts = [ordering.prompt for ordering in orderings for _ in ordering.replies]
    replies = [reply for ordering in orderings for reply in ordering.replies]
    rewards = iter(reward_model.score(prompts, replies, check=check))
    strange = strangeness(
        [ordering.prompt for ordering in orderings], [ordering.prompt for ordering in known]
    )
    scored = [
        Scored(
            rewards=tuple(next(rewards) for _ in ordering.replies),
            tokens=tuple(len(reply) for reply in ordering.replies),
            tied=ordering.tied,
            liked=ordering.liked,
            strangeness=share if known else None,
        )
        for ordering, share in zip(orderings, strange, strict=True)
    ]
    return validate(scored, edited=_seen_through(reward_model, orderings, check=check))


def _seen_through(
    reward_model: RewardModel, orderings: Sequence[EncodedOrdering], *, check: Callable[[], None]
) -> dict[str, float]:
    """By the name of a damage, how often a preferred reply has a higher reward than its damaged copy."""
    preferred = [ordering for ordering in orderings if not ordering.tied and ordering.liked is not False][
        :_MOST_DAMAGED
    ]
    copies = damaged_copies(
        [ordering.prompt for ordering in preferred],
        [ordering.replies[0] for ordering in preferred],
        ends=reward_model.base.ends,
        rng=random.Random(0),
    )
    prompts = [item.prompt for item in copies]
    whole = reward_model.score(prompts, [item.reply for item in copies], check=check)
    damaged = reward_model.score(prompts, [item.copy for item in copies], check=check)
    found: dict[str, list[bool]] = {}
    for item, before, after in zip(copies, whole, damaged, strict=True):
        found.setdefault(item.damage, []).append(before > after)
    return {damage: sum(right) / len(right) for damage, right in found.items()}
