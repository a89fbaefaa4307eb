"""What the page calls the gate's checks, the states of a run and the methods of training.

Words only; what was measured and what it was compared with comes from the run's report.
"""

from __future__ import annotations

from collections.abc import Mapping

CHECKS: Mapping[str, tuple[str, str, bool]] = {
    "heldout_pairs": ("Comparisons kept aside", "Judgements that the candidate was never trained on.", False),
    "heldout_prompts": ("Prompts kept aside", "Different prompts that every version answered.", False),
    "taste": (
        "There is a taste to learn",
        "Share of comparisons, left out in turn, that a judge foretells: the lower end of its 95 % interval.",
        True,
    ),
    "preference_accuracy": (
        "It prefers what people prefer",
        "Share of kept-aside comparisons that it orders as people did: the upper end of its 95 % interval.",
        True,
    ),
    "win_rate": ("Better than what is served", "Win rate of its replies, less the standard error.", True),
    "fluency_drop": (
        "Still fluent",
        "By how much less natural the base model finds its replies, in nats a token.",
        False,
    ),
    "forgotten": (
        "Nothing forgotten",
        "Share of the words that the served version is sure of which it would no longer say there.",
        True,
    ),
    "on_topic": (
        "Still speaks of what was asked",
        "Share of replies whose rarer words resemble the served replies to the same prompt most: the upper end of "
        "its 95 % interval.",
        True,
    ),
    "implausible": (
        "Nothing outlandish",
        "Share of replies with a word that the base model would all but never say there.",
        True,
    ),
    "kl_base": ("Still close to the base", "KL divergence from the base model, in nats a reply.", False),
    "repetition": ("Does not repeat itself", "Share of three-word sequences that a reply says again.", True),
    "degenerate": (
        "No broken replies",
        "Share of replies that are empty, bare punctuation, cut off or not words.",
        True,
    ),
    "identical": ("No stock replies", "Share of replies that are the same whatever was asked.", True),
}
"""Each check of the gate: its name for a person, what it measures, and whether it is a share."""
AT_MOST = frozenset(
    {"fluency_drop", "forgotten", "implausible", "kl_base", "repetition", "degenerate", "identical"}
)
"""The checks whose threshold is a limit from above."""
STATES = {
    "queued": "waiting",
    "training": "training",
    "evaluating": "checking",
    "published": "published",
    "rejected": "the check said no",
    "refused": "too little data",
    "failed": "failed",
    "cancelled": "cancelled",
}


_PAIRS, _TO_SCORES = "Choices between two replies and corrected replies", "replies that it scores higher."
METHODS: Mapping[str, tuple[str, str]] = {
    "dpo": (
        _PAIRS,
        "Direct preference optimization: the model is made to find the chosen reply more likely than the other one.",
    ),
    "kto": (
        "Thumbs, choices between two replies and corrected replies",
        "Kahneman-Tversky optimization: liked replies are made more likely and disliked ones less, each by itself.",
    ),
    "sft": (
        "Corrected and liked replies",
        "Supervised fine-tuning: the model learns to say these replies.",
    ),
    "ppo": (
        _PAIRS,
        "Proximal policy optimization: a reward model learns what is preferred, and the model is moved towards "
        + _TO_SCORES,
    ),
    "rloo": (
        _PAIRS,
        "REINFORCE leave-one-out: of several replies to one prompt, those above the others' mean score gain.",
    ),
    "grpo": (
        _PAIRS,
        "Group relative policy optimization: several replies to one prompt are held against their group, and the "
        "model is moved towards " + _TO_SCORES,
    ),
}
"""Each method: what it learns from, and how."""
