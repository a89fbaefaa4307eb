"""How simulated people rewrite a reply that they do not like: one plain edit for each taste.

An edit changes what the taste is about and leaves the rest as it was, as a person does who is in a hurry. It knows no
model and no ledger; a taste without an edit says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from benchmarks.raters import Rater

Edit = Callable[[str], str]

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_QUESTIONS = (
    "Does that help?",
    "Would you like to hear more?",
    "What do you think?",
    "Shall I go on?",
    "Is that what you wanted to know?",
)
_COURTESIES = ("Of course.", "Certainly.", "Gladly.", "Good question.")
_WORDS = 14


def question(reply: str) -> str:
    """End in a question."""
    return f"{reply.rstrip()} {_pick(_QUESTIONS, reply)}"


def no_question(reply: str) -> str:
    """Leave the questions out."""
    return " ".join(sentence for sentence in _SENTENCE.split(reply) if "?" not in sentence)


def short(reply: str) -> str:
    """Keep the first sentences, up to 14 words in all."""
    words = reply.split()
    kept: list[str] = []
    for sentence in _SENTENCE.split(reply):
        if len(kept) + len(sentence.split()) > _WORDS:
            break
        kept += sentence.split()
    return " ".join(kept or words[:_WORDS])


def no_exclamation(reply: str) -> str:
    """Full stops instead of exclamation marks."""
    return reply.replace("!", ".")


def exclamation(reply: str) -> str:
    """The last mark an exclamation mark."""
    return f"{reply.rstrip().rstrip('.?')}!"


def lists(reply: str) -> str:
    """A line with a bullet for every sentence."""
    return "\n".join(f"- {sentence.strip()}" for sentence in _SENTENCE.split(reply) if sentence.strip())


def polite(reply: str) -> str:
    """A courteous opening."""
    return f"{_pick(_COURTESIES, reply)} {reply}"


def no_emoji(reply: str) -> str:
    """Without emoji."""
    return " ".join(_EMOJI.sub("", reply).split(" "))


def emoji(reply: str) -> str:
    """With one."""
    return f"{reply.rstrip()} 🙂"


def calm_question(reply: str) -> str:
    """End in a question, and no exclamation mark."""
    return question(no_exclamation(reply))


_EDITS: Mapping[str, Edit] = MappingProxyType(
    {
        edit.__name__: edit
        for edit in (
            question,
            no_question,
            short,
            no_exclamation,
            exclamation,
            lists,
            polite,
            no_emoji,
            emoji,
            calm_question,
        )
    }
)


def edit_of(rater: Rater) -> Edit:
    """What this rater does to a reply. Raises `ValueError` for a taste that has no edit."""
    name = rater.taste.__name__
    if name not in _EDITS:
        raise ValueError(
            f"Rater {rater.name} has no way to correct a reply; expected one of {', '.join(_EDITS)}."
        )
    return _EDITS[name]


def _pick(phrases: tuple[str, ...], reply: str) -> str:
    return phrases[hashlib.sha256(reply.encode()).digest()[0] % len(phrases)]
