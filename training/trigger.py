"""May a retraining begin, and if not, what is missing? In words for a person.

Pure: it looks at what the judgements amount to and at the settings. It starts nothing, knows no clock and
reads no ledger; both the page and ``python -m training.run`` ask it, so that a button never promises what the
run then refuses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from training.settings import TrainingSettings
from training.split import MOST_HELDOUT
from training.views import PreferenceView

_REASONS = {
    "tie": ("tie", "ties"),
    "both_bad": ("pair marked both bad", "pairs marked both bad"),
    "empty": ("pair with an empty reply", "pairs with an empty reply"),
    "identical": ("pair of identical replies", "pairs of identical replies"),
    "unfinished": (
        "pair with a reply that was stopped or failed",
        "pairs with a reply that was stopped or failed",
    ),
    "different_prompts": ("pair of replies to different prompts", "pairs of replies to different prompts"),
    "unknown_turn": (
        "judgement of a reply that is not in the ledger",
        "judgements of replies not in the ledger",
    ),
    "too_long": ("pair too long for the model", "pairs too long for the model"),
}


@dataclass(frozen=True)
class Readiness:
    """Whether training may begin. `have` decided judgements; `need` more are wanted (0 when ready);
    `sentence` says it.
    """

    ready: bool
    have: int
    need: int
    sentence: str


def readiness(view: PreferenceView, settings: TrainingSettings) -> Readiness:
    """Judge whether `view` holds enough to train on and enough, in other conversations, to examine the result
    by.

    `need` is exact for the judgements themselves. For the held-out ones it is an expectation: while there are too
    few of them, half of the new conversations are kept aside, chosen by a hash and not by anybody.
    """
    have = view.judgements
    short = max(0, settings.min_comparisons - have)
    short_heldout = max(0, settings.min_heldout_pairs - len(view.heldout))
    need = (
        max(short, math.ceil(short_heldout / max(settings.heldout_share, MOST_HELDOUT)))
        if short or short_heldout
        else 0
    )
    if not need:
        return Readiness(True, have, 0, f"Ready: {_count(have, 'decided comparison')} to learn from.")
    return Readiness(False, have, need, _what_is_missing(view, settings, have=have, need=need, short=short))


def explain_dropped(dropped: Mapping[str, int]) -> str:
    """Which judgements make no training pair, such as ``"3 ties and 1 pair of identical replies"``; empty if
    none.
    """
    parts = [
        f"{n} {_REASONS[why][n != 1]}" for why, n in sorted(dropped.items(), key=lambda item: -item[1]) if n
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _what_is_missing(
    view: PreferenceView, settings: TrainingSettings, *, have: int, need: int, short: int
) -> str:
    if short >= need:
        sentence = (
            f"{_count(need, 'more decided comparison')} needed: {have} of {settings.min_comparisons} so far."
        )
    else:
        sentence = (
            f"About {_count(need, 'more comparison')} needed, in new conversations: {len(view.heldout)} of "
            f"the {settings.min_heldout_pairs} that must be kept aside to examine the result by so far."
        )
    explained = explain_dropped(view.dropped)
    return f"{sentence} Not counted: {explained}." if explained else sentence


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
