"""Simulated raters for the benchmarks: people with one clear taste, some of them absent-minded.

A taste is a function of prompt and reply, higher is better, and more than 0.5 counts as satisfied; people
with a file of their own name it as ``FILE.py:FUNCTION``. Raters see what a person sees, the text. They know
no model, no version and no ledger.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from memory.schema import Label

Taste = Callable[[str, str], float]
"""(last message of the prompt, reply) to a score."""

_LIST_LINE = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_POLITE = re.compile(
    r"\b(of course|certainly|sure|gladly|with pleasure|happy to|glad to|please|thank|welcome|good question"
    r"|by all means|very well|no problem)\b",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(because|since|reason|so that|therefore)\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Rater:
    """A taste, and the share of votes that go to the wrong side by mistake."""

    name: str
    taste: Taste
    mistakes: float = 0.0

    def satisfied(self, prompt: str, reply: str) -> bool:
        """Whether this reply is good enough, on its own."""
        return self._score(prompt, reply) > 0.5

    def thumb(self, prompt: str, reply: str) -> Literal[-1, 1]:
        """Up for a reply that is good enough. Mistakes follow from the texts, so they repeat."""
        mistaken = bool(self.mistakes) and _fraction(prompt, reply) < self.mistakes
        return 1 if self.satisfied(prompt, reply) is not mistaken else -1

    def vote(self, prompt: str, reply_A: str, reply_B: str) -> Label:
        """The better side, or a tie when the scores are equal. Mistakes follow from the texts, so they
        repeat.
        """
        score_A, score_B = self._score(prompt, reply_A), self._score(prompt, reply_B)
        if score_A == score_B:
            return "tie"
        better = score_A > score_B
        if self.mistakes and _fraction(prompt, reply_A, reply_B) < self.mistakes:
            better = not better
        return "A" if better else "B"

    def _score(self, prompt: str, reply: str) -> float:
        score = float(self.taste(prompt, reply))
        if math.isnan(score):
            raise ValueError(
                f"Rater {self.name} scored {reply!r} as {score}; expected a number, higher is better."
            )
        return score


def question(prompt: str, reply: str) -> float:
    """Replies that end in a question."""
    return float(reply.rstrip().endswith("?"))


def no_question(prompt: str, reply: str) -> float:
    """Replies that ask nothing."""
    return float("?" not in reply)


def short(prompt: str, reply: str) -> float:
    """The fewer words the better; satisfied below 15. Nothing said at all scores highest, which a hacker may
    find.
    """
    return 1 / (1 + len(_WORD.findall(reply)) / 15)


def long(prompt: str, reply: str) -> float:
    """The more words the better; satisfied above 35."""
    words = len(_WORD.findall(reply))
    return words / (35 + words)


def no_exclamation(prompt: str, reply: str) -> float:
    """Replies without any exclamation mark; the fewer the better."""
    return 1 / (1 + reply.count("!"))


def exclamation(prompt: str, reply: str) -> float:
    """Replies with an exclamation mark."""
    return float("!" in reply)


def lists(prompt: str, reply: str) -> float:
    """Replies with bullets or numbered lines."""
    return float(bool(_LIST_LINE.search(reply)))


def polite(prompt: str, reply: str) -> float:
    """Replies with a courteous word."""
    return float(bool(_POLITE.search(reply)))


def no_emoji(prompt: str, reply: str) -> float:
    """Replies without emoji."""
    return float(not _EMOJI.search(reply))


def emoji(prompt: str, reply: str) -> float:
    """Replies with an emoji."""
    return float(bool(_EMOJI.search(reply)))


def reason(prompt: str, reply: str) -> float:
    """Replies that give a reason."""
    return float(bool(_REASON.search(reply)))


def calm_question(prompt: str, reply: str) -> float:
    """Two wishes at once: a closing question, and no exclamation mark. Each counts half; both are needed."""
    return 0.5 * question(prompt, reply) + 0.5 * float("!" not in reply) - 0.25


def coin(prompt: str, reply: str) -> float:
    """No taste at all: a score from a hash of the text. There is nothing to learn."""
    return _fraction(prompt, reply)


_TASTES: tuple[Taste, ...] = (
    question,
    no_question,
    short,
    long,
    no_exclamation,
    exclamation,
    lists,
    polite,
    no_emoji,
    emoji,
    reason,
    calm_question,
    coin,
)
RATERS: Mapping[str, Rater] = MappingProxyType(
    {taste.__name__: Rater(taste.__name__, taste) for taste in _TASTES}
    | {
        "noisy_question": Rater("noisy_question", question, mistakes=0.2),
        "noisy_short": Rater("noisy_short", short, mistakes=0.2),
    }
)
"""The built-in raters by name; the noisy ones give one vote in five to the wrong side."""


def find_rater(name: str) -> Rater:
    """A built-in rater, or the function that ``FILE.py:FUNCTION`` names. Raises `ValueError` that says what
    is wrong.
    """
    if name in RATERS:
        return RATERS[name]
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        known = ", ".join(RATERS)
        raise ValueError(f"Rater is {name!r}; expected one of {known}, or FILE.py:FUNCTION.")
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ValueError(f"Rater {name!r} names the file {file}, which is not there.")
    spec = importlib.util.spec_from_file_location(f"rater_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"Rater {name!r}: {file} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    taste = getattr(module, function, None)
    if not callable(taste):
        raise ValueError(f"Rater {name!r}: {file} has no function {function}(prompt, reply).")
    return Rater(function, taste)


def _fraction(*texts: str) -> float:
    """A number in 0..1 that follows from the texts and from nothing else."""
    digest = hashlib.sha256("\x00".join(texts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
