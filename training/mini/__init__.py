"""`models/mini` from nothing: a grammar that writes dialogues, and a small Llama trained on them.

Run it with `python -m training.mini`. Importing the package loads neither torch nor transformers.
"""

from training.mini.dialogue import Message
from training.mini.heldout import (
    HeldOut,
    facts_kept,
    heldout_prompts,
    states_true_fact,
    training_prompts,
    unknown_topic_prompts,
)

__all__ = [
    "HeldOut",
    "Message",
    "facts_kept",
    "heldout_prompts",
    "states_true_fact",
    "training_prompts",
    "unknown_topic_prompts",
]
