"""Single replies that people liked, disliked or wrote themselves, and how liked ones are held against disliked ones.

A thumb speaks of one reply, so nothing says which of two is better; but a liked reply beside a disliked one, whatever
they answered, is a choice that a judge or a policy may get right or wrong. Pure; it knows no split, no tokenizer and
no model.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle

from memory.schema import Message
from memory.views import Feedback, PreferenceRow
from training.split import prompt_key

Prompt = tuple[Message, ...]
_UNUSABLE = ("cancelled", "error")


@dataclass(frozen=True)
class RatedRow:
    """A reply to `prompt` that a person `liked` or did not, or one that a person has `written`.

    `feedback_id` names the judgement (``rating:<turn>``, ``correction:<turn>``, ``comparison:<id>``). A reply that was
    cut off by the length limit is not `finished`.
    """

    prompt: Prompt
    completion: str
    liked: bool
    conversation_id: str
    feedback_id: str
    finished: bool = True
    rater: str = ""
    written: bool = False


@dataclass(frozen=True)
class Contrast:
    """Two replies of which `better` should be preferred; each answers its own prompt."""

    better: RatedRow
    worse: RatedRow


def rated_rows(feedback: Feedback) -> tuple[RatedRow, ...]:
    """The replies that got a thumb, and both sides of each pair that was marked both bad, in ledger order."""
    found = [
        _of_turn(feedback, rating.turn_id, rating.value > 0, f"rating:{rating.turn_id}", rating.rater)
        for rating in feedback.ratings
    ]
    found += [
        _of_turn(feedback, turn_id, False, f"comparison:{labeled.comparison.id}", labeled.rater)
        for labeled in feedback.comparisons
        if labeled.label == "both_bad"
        for turn_id in (labeled.comparison.turn_A, labeled.comparison.turn_B)
    ]
    return tuple(row for row in found if row is not None)


def written_rows(feedback: Feedback) -> tuple[RatedRow, ...]:
    """Replies as people would have written them, each of them liked, in ledger order."""
    return tuple(
        RatedRow(
            turn.prompt,
            correction.text,
            True,
            turn.conversation_id,
            f"correction:{correction.turn_id}",
            rater=correction.rater,
            written=True,
        )
        for correction in feedback.corrections
        if (turn := feedback.turns.get(correction.turn_id)) is not None and correction.text.strip()
    )


def sides_of(rows: Iterable[PreferenceRow]) -> tuple[RatedRow, ...]:
    """Both sides of pairs, the chosen one liked and the rejected one not (Ethayarajh et al. 2024, section 4.1)."""
    return tuple(side for row in rows for side in (_chosen(row), _rejected(row)))


def paired(rows: Iterable[PreferenceRow]) -> tuple[Contrast, ...]:
    """Pairs as contrasts."""
    return tuple(Contrast(_chosen(row), _rejected(row)) for row in rows)


def matched(rows: Sequence[RatedRow]) -> tuple[Contrast, ...]:
    """Each reply of the rarer kind beside one of the other kind, used once: to the same prompt where there is one, else
    in an order fixed by a hash of the texts. So if likes and dislikes were handed out by chance, either side of a
    contrast would be as good as the other."""
    return _match(rows, again=False)


def all_matched(rows: Sequence[RatedRow]) -> tuple[Contrast, ...]:
    """`matched`, and then every further reply of the commoner kind beside one of the rarer kind, taken in turn."""
    return _match(rows, again=True)


def _match(rows: Sequence[RatedRow], *, again: bool) -> tuple[Contrast, ...]:
    liked = sorted((row for row in rows if row.liked), key=_draw)
    disliked = sorted((row for row in rows if not row.liked), key=_draw)
    few, many = (liked, disliked) if len(liked) <= len(disliked) else (disliked, liked)
    if not few:
        return ()
    waiting: dict[Prompt, list[RatedRow]] = defaultdict(list)
    for row in many:
        waiting[prompt_key(row.prompt)].append(row)
    partners = {
        index: same.pop(0) for index, row in enumerate(few) if (same := waiting.get(prompt_key(row.prompt)))
    }
    taken = {id(row) for row in partners.values()}
    left = iter([row for row in many if id(row) not in taken])
    found = [(row, partners[index] if index in partners else next(left)) for index, row in enumerate(few)]
    if again:
        found += list(zip(cycle(few), left, strict=False))
    return tuple(Contrast(*pair) if few is liked else Contrast(*pair[::-1]) for pair in found)


def _of_turn(feedback: Feedback, turn_id: str, liked: bool, feedback_id: str, rater: str) -> RatedRow | None:
    turn = feedback.turns.get(turn_id)
    if turn is None or turn.finish in _UNUSABLE or not turn.completion.strip():
        return None
    return RatedRow(
        turn.prompt,
        turn.completion,
        liked,
        turn.conversation_id,
        feedback_id,
        finished=turn.finish != "length",
        rater=rater,
    )


def _chosen(row: PreferenceRow) -> RatedRow:
    return RatedRow(
        row.prompt, row.chosen, True, row.conversation_id, row.feedback_id, row.chosen_finished, row.rater
    )


def _rejected(row: PreferenceRow) -> RatedRow:
    return RatedRow(
        row.prompt,
        row.rejected,
        False,
        row.conversation_id,
        row.feedback_id,
        row.rejected_finished,
        row.rater,
    )


def _draw(row: RatedRow) -> bytes:
    texts = "\x00".join([*(message.content for message in row.prompt), row.completion])
    return hashlib.sha256(texts.encode("utf-8", "surrogatepass")).digest()
