"""May a retraining begin, and if not, what is missing? In words for a person.

Pure: it looks at what the judgements amount to and at the settings. It starts nothing, knows no clock and
reads no ledger; both the page and ``python -m training.run`` ask it, so that a button never promises what the
run then refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    """Whether training may begin. `have` judgements of the kind that the method learns from; `need` more are wanted (0
    when ready); `sentence` says it.
    """

    ready: bool
    have: int
    need: int
    sentence: str


@dataclass(frozen=True)
class _Amount:
    """So many of something, and how many of it a method needs. `note` explains the counting, where it needs that."""

    thing: str
    have: int
    least: int
    note: str = ""

    @property
    def short(self) -> int:
        return max(0, self.least - self.have)


def readiness(view: PreferenceView, settings: TrainingSettings, *, unexamined: bool = False) -> Readiness:
    """Judge whether `view` holds enough for `settings.method` to train on, and enough, in other conversations, to
    examine the result by. ``auto`` is ready when any of `AUTOMATIC` is.

    `need` is exact for the judgements themselves. For the held-out ones it is an expectation: while there are too
    few of them, half of the new conversations are kept aside, chosen by a hash and not by anybody.

    With `unexamined`, demonstrations that nobody disliked anything beside may be learned from although nothing can be
    kept aside that would examine the result; the gate will say so.
    """
    if settings.method != "auto":
        return _readiness_for(settings.method, view, settings, unexamined=unexamined)
    found = [_readiness_for(method, view, settings, unexamined=unexamined) for method in AUTOMATIC]
    return min(found, key=lambda ready: ready.need)


def _readiness_for(
    method: str, view: PreferenceView, settings: TrainingSettings, *, unexamined: bool
) -> Readiness:
    amounts = _NEEDS[method](view, settings)
    main = amounts[0]
    worst = max(amounts, key=lambda amount: amount.short)
    aside = len(view.heldout) if method in _BY_REWARD else len(view.contrasts)
    short_aside = max(0, settings.min_heldout_pairs - aside)
    if unexamined and method == "sft" and not _is_judged(view):
        short_aside = 0
    each = 2 if method == "kto" else 1
    expected = math.ceil(each * short_aside / max(settings.heldout_share, MOST_HELDOUT))
    need = max(worst.short, expected)
    if not need:
        return Readiness(True, main.have, 0, f"Ready: {_count(main.have, main.thing)} to learn from.")
    if worst.short >= need or (worst.short and not worst.have):
        said = f"{_count(worst.short, f'more {worst.thing}')} needed: {worst.have} of {worst.least} so far{worst.note}."
    else:
        thing = main.thing.removeprefix("decided ")
        said = (
            f"About {_count(need, f'more {thing}')} needed{_KINDS.get(method, '')}, in new conversations: {aside} of "
            f"the {settings.min_heldout_pairs} that must be kept aside to examine the result by so far."
        )
    explained = explain_dropped(view.dropped)
    return Readiness(False, main.have, need, f"{said} Not counted: {explained}." if explained else said)


def _is_judged(view: PreferenceView) -> bool:
    """Whether anything was found worse than anything else."""
    rated = (*view.rated, *view.rated_heldout)
    return bool(view.train or view.heldout) or not all(row.liked for row in rated)


def _of_comparisons(view: PreferenceView, settings: TrainingSettings) -> list[_Amount]:
    return [_Amount("decided comparison", view.judgements, settings.min_comparisons)]


def _of_thumbs(view: PreferenceView, settings: TrainingSettings) -> list[_Amount]:
    pairs = view.judgements
    rated = (*view.rated, *view.rated_heldout)
    up, down = (pairs + sum(row.liked is liked for row in rated) for liked in (True, False))
    both = "; a decided comparison counts as one up and one down"
    rarer = settings.min_thumbs // 4
    return [
        _Amount("thumb", up + down, settings.min_thumbs, both),
        _Amount("thumb up", up, rarer),
        _Amount("thumb down", down, rarer),
    ]


def _of_demonstrations(view: PreferenceView, settings: TrainingSettings) -> list[_Amount]:
    liked = sum(row.liked for row in (*view.rated, *view.rated_heldout))
    ids = {row.feedback_id for row in (*view.train, *view.heldout)}
    ids |= {row.feedback_id for row in view.written}
    corrected = {name for name in ids if name.startswith("correction:")}
    return [_Amount("correction or liked reply", len(corrected) + liked, settings.min_demonstrations)]


AUTOMATIC = ("dpo", "kto", "sft")
"""What ``auto`` chooses from; the others need a reward model, and the patience for one."""
_BY_REWARD = ("ppo", "rloo", "grpo")
_NEEDS: Mapping[str, Callable[[PreferenceView, TrainingSettings], list[_Amount]]] = {
    "dpo": _of_comparisons,
    "kto": _of_thumbs,
    "sft": _of_demonstrations,
    "rloo": _of_comparisons,
    "grpo": _of_comparisons,
    "ppo": _of_comparisons,
}
_KINDS = {"kto": " (both up and down)", "sft": " (and disliked ones)"}
_PLURALS = {
    "thumb up": "thumbs up",
    "thumb down": "thumbs down",
    "correction or liked reply": "corrections or liked replies",
}


def explain_dropped(dropped: Mapping[str, int]) -> str:
    """Which judgements make no training pair, such as ``"3 ties and 1 pair of identical replies"``; empty if
    none.
    """
    parts = [
        f"{n} {_REASONS[why][n != 1]}" for why, n in sorted(dropped.items(), key=lambda item: -item[1]) if n
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _count(n: int, thing: str) -> str:
    if n == 1:
        return f"{n} {thing}"
    plain = thing.removeprefix("more ")
    many = _PLURALS.get(plain, f"{plain}s")
    return f"{n} {'more ' if thing != plain else ''}{many}"
