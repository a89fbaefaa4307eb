"""The rows of a ledger on the two sides of the split: what is trained on, and what the result is examined by.

The rows themselves are made in `memory.views`, whose names can be had from here too, and in `training.rated`. Which
side a row stands on is `training.split`'s to say. Pure; this module knows no tokenizer, no model and no method.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from memory.views import (
    Feedback,
    PreferenceRow,
    Prompt,
    preference_rows,
    read_feedback,
    sft_rows,
    unpaired_rows,
)
from training.rated import Contrast, RatedRow, matched, paired, rated_rows, written_rows
from training.split import SPLIT_SEED, HeldoutBy, cut_for, prompt_key, split

__all__ = [
    "Feedback",
    "PreferenceRow",
    "PreferenceView",
    "Prompt",
    "RatedRow",
    "preference_rows",
    "preference_view",
    "read_feedback",
    "sft_rows",
    "unpaired_rows",
]


@dataclass(frozen=True)
class PreferenceView:
    """The rows of a ledger, split: pairs, single replies with a thumb, and (to train on only) what people wrote.

    `train_prompts` and `heldout_prompts` are the different prompts of either side's conversations, ties included; no
    prompt is in both. `dropped` counts the judgements (of a ranking: its pairs) that made no pair, by reason.
    """

    train: tuple[PreferenceRow, ...]
    heldout: tuple[PreferenceRow, ...]
    train_prompts: tuple[Prompt, ...] = ()
    heldout_prompts: tuple[Prompt, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    rated: tuple[RatedRow, ...] = ()
    rated_heldout: tuple[RatedRow, ...] = ()
    written: tuple[RatedRow, ...] = ()

    @property
    def judgements(self) -> int:
        """How many judgements stand behind the pairs of both parts."""
        return len({row.feedback_id for row in (*self.train, *self.heldout)})

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """What the result is examined by: held-out pairs, and held-out liked replies beside disliked ones."""
        return (*paired(self.heldout), *matched(self.rated_heldout))


@dataclass(frozen=True)
class _Asked:
    """A prompt that stands on a side of the split like the judgements of its conversation."""

    prompt: Prompt
    conversation_id: str
    rater: str = ""


_Row = PreferenceRow | RatedRow | _Asked


def preference_view(
    feedback: Feedback,
    *,
    share: float,
    least: int = 0,
    seed: int = SPLIT_SEED,
    by: HeldoutBy = "conversation",
) -> PreferenceView:
    """All rows of `feedback`, split by conversation (or by rater): `share` of them held out, and more while there would
    be fewer than `least` contrasts.
    """
    pairs, dropped = preference_rows(feedback)
    rows: list[_Row] = [*pairs, *rated_rows(feedback), *written_rows(feedback), *_asked(feedback)]
    # Where nothing was found worse than anything else, holding out more of it would not help.
    least = least if _contrasts_in(rows) else 0
    cut = cut_for(rows, share=share, least=least, seed=seed, by=by, count=_contrasts_in)
    train, heldout = split(rows, share=cut, seed=seed, by=by)
    return PreferenceView(
        tuple(row for row in train if isinstance(row, PreferenceRow)),
        tuple(row for row in heldout if isinstance(row, PreferenceRow)),
        _different_prompts(train),
        _different_prompts(heldout),
        dict(dropped),
        tuple(row for row in train if isinstance(row, RatedRow) and not row.written),
        tuple(row for row in heldout if isinstance(row, RatedRow) and not row.written),
        tuple(row for row in train if isinstance(row, RatedRow) and row.written),
    )


def _contrasts_in(rows: Sequence[_Row]) -> int:
    """How many contrasts held-out rows make. What people wrote is in the pairs already."""
    pairs = sum(isinstance(row, PreferenceRow) for row in rows)
    thumbs = [row.liked for row in rows if isinstance(row, RatedRow) and not row.written]
    return pairs + min(sum(thumbs), len(thumbs) - sum(thumbs))


def _asked(feedback: Feedback) -> Iterable[_Asked]:
    """The prompts of everything judged, by those who judged, and of turns that nobody judged."""
    for labeled in feedback.comparisons:
        yield _Asked(labeled.comparison.prompt, labeled.comparison.conversation_id, labeled.rater)
    raters = {turn_id: ranking.rater for ranking in feedback.rankings for turn_id in ranking.turn_ids}
    raters |= {rating.turn_id: rating.rater for rating in feedback.ratings}
    raters |= {correction.turn_id: correction.rater for correction in feedback.corrections}
    compared = {
        turn_id
        for labeled in feedback.comparisons
        for turn_id in (labeled.comparison.turn_A, labeled.comparison.turn_B)
    }
    for turn in feedback.turns.values():
        if turn.id in raters or turn.id not in compared:
            yield _Asked(turn.prompt, turn.conversation_id, raters.get(turn.id, ""))


def _different_prompts(rows: Iterable[_Row]) -> tuple[Prompt, ...]:
    different: dict[Prompt, Prompt] = {}
    for row in rows:
        if isinstance(row, _Asked):
            different.setdefault(prompt_key(row.prompt), row.prompt)
    return tuple(different.values())
