"""A ledger with judgements in it, for tests of what is learned from them: real turns, a rater with a simple
taste.
"""

from __future__ import annotations

from typing import Any

from memory.database import Database
from memory.ledger import Ledger
from memory.schema import Comparison, Correction, LabeledComparison, Message, Rating, Turn
from training.settings import TrainingSettings

LIKED = (
    "Put it in cold water. Shall I say more?",
    "Tea and trains. Is that all?",
    "Wait ten minutes. And then?",
)
DISLIKED = ("Put it in cold water.", "Tea and trains!", "I do not know.")


def turn(number: str, conversation: str, prompt: str, completion: str, **changes: Any) -> Turn:
    """A finished turn of the base model, with `changes` laid over it."""
    values: dict[str, Any] = {
        "id": number,
        "conversation_id": conversation,
        "prompt": (Message("user", prompt),),
        "completion": completion,
        "policy_version": "base",
        "fingerprint": "00000000",
        "sampling": {"temperature": 0.8, "top_p": 0.95, "max_new_tokens": 24, "seed": 1},
        "prompt_tokens": 10,
        "completion_tokens": 10,
        "finish": "stop",
        "created_at": 1.0,
    }
    return Turn(**{**values, **changes})


def comparison_of(number: str, first: Turn, second: Turn) -> Comparison:
    """The question which of two turns is better."""
    return Comparison(
        id=number,
        conversation_id=first.conversation_id,
        prompt=first.prompt,
        turn_A=first.id,
        turn_B=second.id,
        completion_A=first.completion,
        completion_B=second.completion,
        version_A=first.policy_version,
        version_B=second.policy_version,
        shown_first="A",
        created_at=2.0,
    )


def fill_ledger(database: Database, *, comparisons: int, start: int = 0) -> None:
    """One decided comparison a conversation: the liked reply ends in a question, sides alternate."""
    ledger = Ledger(database)
    for number in range(start, start + comparisons):
        conversation, prompt = f"conversation-{number}", f"What about thing number {number} and the weather?"
        liked = turn(f"liked-{number}", conversation, prompt, LIKED[number % 3])
        other = turn(f"other-{number}", conversation, prompt, DISLIKED[number % 3])
        for made in (liked, other):
            ledger.record_turn(made)
        sides = (liked, other) if number % 2 else (other, liked)
        comparison = comparison_of(f"comparison-{number}", *sides)
        ledger.record_comparison(comparison)
        label = "A" if number % 2 else "B"
        ledger.record(LabeledComparison(comparison, label, "rater", seconds=1.0, created_at=3.0 + number))


def fill_thumbs(database: Database, *, thumbs: int) -> None:
    """One rated reply a conversation: those that end in a question are liked, and every other one does."""
    ledger = Ledger(database)
    for number in range(thumbs):
        text = (LIKED if number % 2 else DISLIKED)[number // 2 % 3]
        made = turn(f"rated-{number}", f"thumb-{number}", f"What about thing {number} and the weather?", text)
        ledger.record_turn(made)
        ledger.record(Rating(made.id, 1 if number % 2 else -1, "rater", created_at=3.0 + number))


def fill_corrections(database: Database, *, corrections: int) -> None:
    """One corrected reply a conversation: a question is put behind it."""
    ledger = Ledger(database)
    for number in range(corrections):
        text = DISLIKED[number % 3]
        made = turn(
            f"wrong-{number}", f"corrected-{number}", f"What about thing {number} and the rain?", text
        )
        ledger.record_turn(made)
        ledger.record(Correction(made.id, f"{text} Is that all?", "rater", created_at=3.0 + number))


def quick_settings(**changes: Any) -> TrainingSettings:
    """Settings under which a tiny model goes through an iteration in seconds."""
    quick = {
        "quantization": "none",
        "context_tokens": 256,
        "max_new_tokens": 12,
        "min_comparisons": 12,
        "min_heldout_pairs": 2,
        "min_steps": 6,
        "epochs": 1,
        "batch_size": 4,
        "lora_rank": 4,
        "eval_prompts": 8,
        # Of random weights, which say nothing, language and topic cannot be asked.
        "max_implausible": 1.0,
        "max_forgotten": 1.0,
        "min_on_topic": 0.0,
    }
    return TrainingSettings(**{**quick, **changes})
