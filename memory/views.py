"""What the ledger holds, as rows to train on, in TRL's columns.

Every person's judgement becomes zero or more rows, and every judgement that becomes none is counted with its reason.
Pairs are only made of replies to the same prompt. `read_feedback` reads a whole ledger and `feedback_in_parts` one of
any size; everything else is pure. This module knows no split, no tokenizer, no model and no method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from memory.judgements import LedgerReader
from memory.schema import Correction, Judgement, LabeledComparison, Message, Ranking, Rating, Turn

Prompt = tuple[Message, ...]
_UNUSABLE = ("cancelled", "error")


@dataclass(frozen=True)
class Feedback:
    """Everything people judged, as it stands now. `turns` holds the turns that the judgements name, by id."""

    comparisons: tuple[LabeledComparison, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    corrections: tuple[Correction, ...] = ()
    ratings: tuple[Rating, ...] = ()
    turns: Mapping[str, Turn] = field(default_factory=dict)


@dataclass(frozen=True)
class PreferenceRow:
    """One pair: `chosen` was preferred to `rejected` as the reply to `prompt`.

    `feedback_id` names the judgement (``comparison:<id>``, ``ranking:<turn>>...``, ``correction:<turn>``) and `rater`
    whose it is; both are empty for a pair that no person judged. A reply that was cut off by the length limit is not
    `finished`: it must not teach the policy to stop there.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    conversation_id: str
    feedback_id: str
    chosen_finished: bool = True
    rejected_finished: bool = True
    rater: str = ""

    def to_trl(self) -> dict[str, list[dict[str, str]]]:
        """TRL's conversational *preference* row: ``{prompt, chosen, rejected}``."""
        return {
            "prompt": to_messages(self.prompt),
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
        }


def read_feedback(ledger: LedgerReader) -> Feedback:
    """Read the current judgements and the turns they name; a turn unknown to the ledger is left out."""
    return _feedback_of(
        ledger, [*ledger.comparisons(), *ledger.rankings(), *ledger.corrections(), *ledger.ratings()]
    )


def feedback_in_parts(ledger: LedgerReader, kinds: Sequence[str], *, size: int = 1000) -> Iterator[Feedback]:
    """The standing judgements of these kinds, kind by kind in order of arrival, `size` at a time with their turns."""
    for kind in kinds:
        for judgements in ledger.standing_in_parts(kind, size=size):
            yield _feedback_of(ledger, judgements)


def _feedback_of(ledger: LedgerReader, judgements: Sequence[Judgement]) -> Feedback:
    comparisons = tuple(said for said in judgements if isinstance(said, LabeledComparison))
    rankings = tuple(said for said in judgements if isinstance(said, Ranking))
    corrections = tuple(said for said in judgements if isinstance(said, Correction))
    ratings = tuple(said for said in judgements if isinstance(said, Rating))
    named = {
        turn for labeled in comparisons for turn in (labeled.comparison.turn_A, labeled.comparison.turn_B)
    }
    named |= {turn for ranking in rankings for turn in ranking.turn_ids}
    named |= {correction.turn_id for correction in corrections} | {rating.turn_id for rating in ratings}
    return Feedback(comparisons, rankings, corrections, ratings, ledger.turns_named(named))


def preference_rows(feedback: Feedback) -> tuple[tuple[PreferenceRow, ...], Counter[str]]:
    """Every pair that people's judgements make, in ledger order, and why the other judgements made none."""
    dropped: Counter[str] = Counter()
    candidates: list[PreferenceRow | str] = [
        *(_from_comparison(labeled, feedback.turns) for labeled in feedback.comparisons),
        *(pair for ranking in feedback.rankings for pair in _from_ranking(ranking, feedback.turns)),
        *(_from_correction(correction, feedback.turns) for correction in feedback.corrections),
    ]
    rows: list[PreferenceRow] = []
    for candidate in candidates:
        problem = candidate if isinstance(candidate, str) else _problem_of(candidate)
        if problem:
            dropped[problem] += 1
        elif isinstance(candidate, PreferenceRow):
            rows.append(candidate)
    return tuple(rows), dropped


def unpaired_rows(ratings: Iterable[Rating], turns: Mapping[str, Turn]) -> tuple[dict[str, Any], ...]:
    """TRL's *unpaired preference* rows of thumbs: ``{prompt, completion, label}``, one per finished, rated
    turn.
    """
    return tuple(
        {
            "prompt": to_messages(turns[rating.turn_id].prompt),
            "completion": [{"role": "assistant", "content": turns[rating.turn_id].completion}],
            "label": rating.value > 0,
        }
        for rating in ratings
        if rating.turn_id in turns and turns[rating.turn_id].finish not in _UNUSABLE
    )


def sft_rows(corrections: Iterable[Correction], turns: Mapping[str, Turn]) -> tuple[dict[str, Any], ...]:
    """TRL's *prompt-completion* rows of corrections: the reply as the person would have written it."""
    return tuple(
        {
            "prompt": to_messages(turns[correction.turn_id].prompt),
            "completion": [{"role": "assistant", "content": correction.text}],
        }
        for correction in corrections
        if correction.turn_id in turns and correction.text.strip()
    )


def _from_comparison(labeled: LabeledComparison, turns: Mapping[str, Turn]) -> PreferenceRow | str:
    if labeled.label in ("tie", "both_bad"):
        return labeled.label
    comparison = labeled.comparison
    finishes = {side: _finish(turns, turn_id) for side, turn_id in _sides(labeled).items()}
    if any(finish in _UNUSABLE for finish in finishes.values()):
        return "unfinished"
    prompts = {turns[turn_id].prompt for turn_id in _sides(labeled).values() if turn_id in turns}
    if prompts - {comparison.prompt}:
        return "different_prompts"
    return PreferenceRow(
        prompt=comparison.prompt,
        chosen=labeled.chosen or "",
        rejected=labeled.rejected or "",
        conversation_id=comparison.conversation_id,
        feedback_id=f"comparison:{comparison.id}",
        chosen_finished=finishes["chosen"] != "length",
        rejected_finished=finishes["rejected"] != "length",
        rater=labeled.rater,
    )


def _sides(labeled: LabeledComparison) -> dict[str, str]:
    pair = (labeled.comparison.turn_A, labeled.comparison.turn_B)
    return dict(zip(("chosen", "rejected"), pair if labeled.label == "A" else pair[::-1], strict=True))


def _from_ranking(ranking: Ranking, turns: Mapping[str, Turn]) -> Iterable[PreferenceRow | str]:
    for better, worse in combinations(ranking.turn_ids, 2):
        if better not in turns or worse not in turns:
            yield "unknown_turn"
            continue
        chosen, rejected = turns[better], turns[worse]
        if chosen.prompt != rejected.prompt:
            yield "different_prompts"
        elif chosen.finish in _UNUSABLE or rejected.finish in _UNUSABLE:
            yield "unfinished"
        else:
            yield PreferenceRow(
                prompt=chosen.prompt,
                chosen=chosen.completion,
                rejected=rejected.completion,
                conversation_id=chosen.conversation_id,
                feedback_id=f"ranking:{'>'.join(ranking.turn_ids)}",
                chosen_finished=chosen.finish != "length",
                rejected_finished=rejected.finish != "length",
                rater=ranking.rater,
            )


def _from_correction(correction: Correction, turns: Mapping[str, Turn]) -> PreferenceRow | str:
    turn = turns.get(correction.turn_id)
    if turn is None:
        return "unknown_turn"
    if turn.finish in _UNUSABLE:
        return "unfinished"
    return PreferenceRow(
        prompt=turn.prompt,
        chosen=correction.text,
        rejected=turn.completion,
        conversation_id=turn.conversation_id,
        feedback_id=f"correction:{correction.turn_id}",
        rejected_finished=turn.finish != "length",
        rater=correction.rater,
    )


def _problem_of(row: PreferenceRow) -> str:
    if not row.chosen.strip() or not row.rejected.strip():
        return "empty"
    if row.chosen.strip() == row.rejected.strip():
        return "identical"
    return ""


def _finish(turns: Mapping[str, Turn], turn_id: str) -> str:
    return turns[turn_id].finish if turn_id in turns else "stop"


def to_messages(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as TRL and the chat templates spell it."""
    return [{"role": message.role, "content": message.content} for message in prompt]
