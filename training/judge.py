"""Who would be preferred? What a judge of pairs of replies is, and win rates judged both ways round.

A judge is anything that gives the probability that reply A is better than reply B; the one that is fitted on people's
judgements is in `training.bradley_terry`. Nothing here knows how a judge comes to its opinion, and nothing here trusts
it: a judge that favours the reply it reads first is averaged out, and every rate comes with its standard error.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from memory.schema import Message
from training.split import prompt_key

Prompt = tuple[Message, ...]


class Judge(Protocol):
    """Probability in 0..1 that, as a reply to `prompt`, `reply_A` is better than `reply_B`."""

    def __call__(self, prompt: Prompt, reply_A: str, reply_B: str) -> float: ...


@dataclass(frozen=True)
class Contest:
    """Two versions' replies to one prompt."""

    prompt: Prompt
    reply_A: str
    reply_B: str

    def swap(self) -> Contest:
        """The same contest with the letters exchanged."""
        return Contest(self.prompt, self.reply_B, self.reply_A)


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error, over so many independent prompts."""

    mean: float
    error: float
    clusters: int


def win_rate(judge: Judge, contests: Sequence[Contest]) -> Estimate:
    """How often side A wins, each contest judged both ways round and averaged, with its standard error.

    Contests on the same prompt are not independent: the error is that of the mean over prompts (clustered, paired).
    """
    by_prompt: dict[Prompt, list[float]] = defaultdict(list)
    for contest in contests:
        other = contest.swap()
        straight = judge(contest.prompt, contest.reply_A, contest.reply_B)
        swapped = 1.0 - judge(other.prompt, other.reply_A, other.reply_B)
        by_prompt[prompt_key(contest.prompt)].append((straight + swapped) / 2)
    means = [sum(values) / len(values) for values in by_prompt.values()]
    if not means:
        return Estimate(math.nan, math.nan, 0)
    mean = sum(means) / len(means)
    if len(means) < 2:
        return Estimate(mean, math.nan, len(means))
    variance = sum((value - mean) ** 2 for value in means) / (len(means) - 1)
    return Estimate(mean, math.sqrt(variance / len(means)), len(means))


def wilson(successes: int, trials: int, *, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share that holds up for few trials (Wilson 1927). (nan, nan) without a trial."""
    if trials == 0:
        return math.nan, math.nan
    share, weight = successes / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)
