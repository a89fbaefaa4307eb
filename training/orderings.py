"""What people said of replies to one prompt, as orderings: comparisons, ties, rankings, corrections and thumbs alike.

`training.views` makes pairs of the same judgements for methods that know nothing else. Here a tie stays a tie, a
ranking stays in one piece, a thumb stays with its one reply, and it is remembered who judged, for a reward model that
has a use for all of these. Pure; it knows no tokenizer and no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from memory.schema import Correction, LabeledComparison, Message, Ranking, Rating, Turn
from training.split import prompt_key
from training.views import Feedback

Prompt = tuple[Message, ...]
RaterWeighting = Literal["judgement", "rater"]
_UNUSABLE = ("cancelled", "error")


@dataclass(frozen=True)
class Ordering:
    """Two or more replies to `prompt`, best first; or two between which the rater saw no difference (`tied`); or a
    single one with a thumb, up if `liked`.

    A reply that was cut off by the length limit is not `finished`. `feedback_id` is that of `training.views`.
    """

    prompt: Prompt
    replies: tuple[str, ...]
    finished: tuple[bool, ...]
    rater: str
    conversation_id: str
    feedback_id: str
    tied: bool = False
    liked: bool | None = None

    @property
    def pairs(self) -> int:
        """How many comparisons the ordering amounts to; none for a tie or a thumb."""
        return 0 if self.tied else len(self.replies) * (len(self.replies) - 1) // 2


def orderings_of(feedback: Feedback) -> tuple[Ordering, ...]:
    """All usable orderings, in ledger order.

    Left out: "both bad", replies that were stopped, failed or are empty, replies that are the same, replies to
    different prompts, and turns that are not in the ledger.
    """
    found = [
        *(_of_comparison(labeled, feedback.turns) for labeled in feedback.comparisons),
        *(_of_ranking(ranking, feedback.turns) for ranking in feedback.rankings),
        *(_of_correction(correction, feedback.turns) for correction in feedback.corrections),
        *(_of_rating(rating, feedback.turns) for rating in feedback.ratings),
    ]
    return tuple(ordering for ordering in found if ordering is not None and _is_usable(ordering))


def split_orderings(
    orderings: Sequence[Ordering], train_prompts: Iterable[Prompt]
) -> tuple[tuple[Ordering, ...], tuple[Ordering, ...]]:
    """(train, heldout), on the sides that the pairs of `training.views.PreferenceView` stand on.

    `train_prompts` are the view's: it lists every prompt of a training conversation, judged or tied.
    """
    taught = {prompt_key(prompt) for prompt in train_prompts}
    train = tuple(ordering for ordering in orderings if prompt_key(ordering.prompt) in taught)
    heldout = tuple(ordering for ordering in orderings if prompt_key(ordering.prompt) not in taught)
    return train, heldout


def rater_weights(orderings: Sequence[Ordering], weighting: RaterWeighting) -> list[float]:
    """A weight for each ordering, with mean 1: all alike (``judgement``), or so that every rater has as much to say as
    any other, however much they judged (``rater``).
    """
    if weighting == "judgement" or not orderings:
        return [1.0] * len(orderings)
    counts = Counter(ordering.rater for ordering in orderings)
    return [len(orderings) / len(counts) / counts[ordering.rater] for ordering in orderings]


def _of_comparison(labeled: LabeledComparison, turns: Mapping[str, Turn]) -> Ordering | None:
    if labeled.label == "both_bad":
        return None
    comparison = labeled.comparison
    sides = [(comparison.completion_A, comparison.turn_A), (comparison.completion_B, comparison.turn_B)]
    if labeled.label == "B":
        sides.reverse()
    known = [turns[turn_id] for _, turn_id in sides if turn_id in turns]
    if any(turn.finish in _UNUSABLE or turn.prompt != comparison.prompt for turn in known):
        return None
    return Ordering(
        prompt=comparison.prompt,
        replies=tuple(completion for completion, _ in sides),
        finished=tuple(turn_id not in turns or turns[turn_id].finish != "length" for _, turn_id in sides),
        rater=labeled.rater,
        conversation_id=comparison.conversation_id,
        feedback_id=f"comparison:{comparison.id}",
        tied=labeled.label == "tie",
    )


def _of_ranking(ranking: Ranking, turns: Mapping[str, Turn]) -> Ordering | None:
    """A ranking without the replies that cannot be used, if two are left."""
    ranked = [turns[turn_id] for turn_id in ranking.turn_ids if turn_id in turns]
    ranked = [turn for turn in ranked if turn.finish not in _UNUSABLE]
    if len(ranked) < 2 or any(turn.prompt != ranked[0].prompt for turn in ranked):
        return None
    return Ordering(
        prompt=ranked[0].prompt,
        replies=tuple(turn.completion for turn in ranked),
        finished=tuple(turn.finish != "length" for turn in ranked),
        rater=ranking.rater,
        conversation_id=ranked[0].conversation_id,
        feedback_id=f"ranking:{'>'.join(ranking.turn_ids)}",
    )


def _of_correction(correction: Correction, turns: Mapping[str, Turn]) -> Ordering | None:
    turn = turns.get(correction.turn_id)
    if turn is None or turn.finish in _UNUSABLE:
        return None
    return Ordering(
        prompt=turn.prompt,
        replies=(correction.text, turn.completion),
        finished=(True, turn.finish != "length"),
        rater=correction.rater,
        conversation_id=turn.conversation_id,
        feedback_id=f"correction:{correction.turn_id}",
    )


def _of_rating(rating: Rating, turns: Mapping[str, Turn]) -> Ordering | None:
    turn = turns.get(rating.turn_id)
    if turn is None or turn.finish in _UNUSABLE:
        return None
    return Ordering(
        prompt=turn.prompt,
        replies=(turn.completion,),
        finished=(turn.finish != "length",),
        rater=rating.rater,
        conversation_id=turn.conversation_id,
        feedback_id=f"rating:{rating.turn_id}",
        liked=rating.value > 0,
    )


def _is_usable(ordering: Ordering) -> bool:
    """Whether all replies are something and no two are the same."""
    said = [reply.strip() for reply in ordering.replies]
    return all(said) and len(set(said)) == len(said)
