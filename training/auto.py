"""Which method fits what people have said? Chooses one and explains the choice in a sentence.

Pairs say most a click, and a correction is one; thumbs come first when there are far more of them, likes alone when
there is nothing else. A method with a reward model is never chosen: docs/methods.md has the measurements. How much a
method needs is `training.trigger`'s to say. Pure; it reads no ledger and trains nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from training.settings import TrainingSettings
from training.trigger import AUTOMATIC, readiness
from training.views import PreferenceView

_THUMBS_FOR_A_PAIR = 4
"""From so many thumbs a comparison on, thumbs are learned from. Who compares reads two replies, as who gives two thumbs
does; so this is twice as much reading."""


@dataclass(frozen=True)
class Choice:
    """The method to train with, and why, for a person."""

    method: str
    sentence: str


def choose(view: PreferenceView, settings: TrainingSettings) -> Choice:
    """The method for `view`. Raises `ValueError` while there is too little for any, with what is missing."""
    ready = {
        method
        for method in AUTOMATIC
        if readiness(view, settings.model_copy(update={"method": method})).ready
    }
    compared, thumbs, corrected = _counts(view)
    held = f"{compared} comparisons, {thumbs} thumbs, {corrected} corrections"
    if "kto" in ready and thumbs > _THUMBS_FOR_A_PAIR * (compared + corrected):
        return Choice(
            "kto", f"Chose KTO, which learns from thumbs, because most of what people said is thumbs: {held}."
        )
    if "dpo" in ready:
        return Choice(
            "dpo",
            f"Chose DPO, which learns from pairs and corrections, because there are enough of them: {held}.",
        )
    if "kto" in ready:
        return Choice(
            "kto", f"Chose KTO, which learns from thumbs, because pairs are too few for DPO: {held}."
        )
    if "sft" in ready:
        return Choice("sft", f"Chose SFT, which imitates replies, because all else is too little: {held}.")
    raise ValueError(readiness(view, settings.model_copy(update={"method": "auto"})).sentence)


def _counts(view: PreferenceView) -> tuple[int, int, int]:
    """(comparisons and rankings, thumbs, corrections)"""
    ids = {row.feedback_id for row in (*view.train, *view.heldout)}
    ids |= {row.feedback_id for row in view.written}
    corrected = sum(name.startswith("correction:") for name in ids)
    return len(ids) - corrected, len(view.rated) + len(view.rated_heldout), corrected


if __name__ == "__main__":
    from training.command import main

    sys.exit(main("auto"))
