"""How people ask: for every intent dozens of phrasings, some of them held out, and the untidiness of real typing.

Knows intents and wording; knows nothing of what the right answer is.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from training.mini.topics import Topic

ASKING_FILE = Path(__file__).parent / "asking.toml"


@dataclass(frozen=True)
class Phrasings:
    """Frames for one intent; {noun} {name} {many} {be} {do} are filled from the topic. The two sets are disjoint."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Askings:
    """The phrasings of every intent: of questions that name their topic, and of follow-ups that do not."""

    topic: Mapping[str, Phrasings]
    follow_up: Mapping[str, Phrasings]


def load_askings(path: Path = ASKING_FILE) -> Askings:
    """Read the phrasings, in the order of the file."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    topic, follow_up = (
        {intent: Phrasings(tuple(t["trained"]), tuple(t["held_out"])) for intent, t in tables[part].items()}
        for part in ("topic", "follow_up")
    )
    return Askings(MappingProxyType(topic), MappingProxyType(follow_up))


_OPENERS = (
    "please ",
    "hi, ",
    "hey, ",
    "hello, ",
    "ok so ",
    "so, ",
    "hi there, ",
    "um, ",
    "well, ",
    "good morning, ",
    "excuse me, ",
    "hi! ",
    "hello! ",
    "I have a question. ",
    "this may sound silly, but ",
    "my son wants to know: ",
    "I am new here. ",
    "can I ask something? ",
    "quick one: ",
)
_LATER_OPENERS = ("ok, ", "so, ", "hm, ", "well, ", "oh, ", "right, ", "um, ")
_CLOSERS = (" please", ", please", ", thanks", " thanks", ", thank you")
_COMPLETE = re.compile(
    r"(hi|hello|hey|hiya|good|morning|evening|bye|thank|thanks|i|my|this is|call me|ok)\b", re.I
)
"""What already opens with a greeting or is no question: nobody says hello before it."""


def phrase(frame: str, topic: Topic, rng: random.Random, *, named: bool = True) -> str:
    """Fill a frame with the topic; `named=False` refers to it by pronoun, as a follow-up does."""
    many = topic.noun if rng.random() < 0.5 else topic.many
    filled = frame.replace("{noun}", topic.noun).replace("{name}", topic.name).replace("{many}", many)
    filled = (
        filled.replace("{pron}", topic.pronoun)
        .replace("{be}", topic.be)
        .replace("{do}", "do" if topic.plural else "does")
    )
    filled = filled.replace("{obj}", topic.noun if named else topic.object_pronoun)
    return filled.replace("{it}", topic.noun if named else topic.pronoun)


def type_untidily(text: str, rng: random.Random, *, later: bool = False, typo_rate: float = 0.05) -> str:
    """What a hurried person makes of it: politeness around it, lower case, no question mark, a slip of the finger.

    `later` is for messages within a conversation, which open with no greeting.
    """
    question = looks_like_question(text)
    if rng.random() < 0.1 and not _COMPLETE.match(text):
        text = rng.choice(_LATER_OPENERS if later else _OPENERS) + text
    if rng.random() < 0.07 and 10 < len(text) < 60 and "thank" not in text and "please" not in text:
        text += rng.choice(_CLOSERS)
    if rng.random() < typo_rate:
        text = slip(text, rng)
    marked = question and rng.random() < 0.6
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    elif rng.random() < 0.6:
        text = text.lower()
    elif rng.random() < 0.05:
        text = text.upper()
    return text + ("?" if marked else "." if not question and rng.random() < 0.3 else "")


_QUESTION_STARTS = (
    "what", "who", "why", "how", "where", "when", "which", "is ", "are ", "can ", "could ", "do ", "does ", "did ",
    "would ", "have ", "has ", "should ", "will ", "and what", "and how", "and why", "but what", "but why", "any ",
    "really",
)  # fmt: skip


def looks_like_question(text: str) -> bool:
    """Whether English would end the text with a question mark."""
    last = text.replace(":", ".").split(". ")[-1].strip()
    return last.lower().startswith(_QUESTION_STARTS)


def slip(text: str, rng: random.Random) -> str:
    """One slip of the finger in one word of four letters or more: a letter lost, doubled or swapped with the next."""
    words = text.split(" ")
    long_words = [place for place, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long_words:
        return text
    place = rng.choice(long_words)
    word = words[place]
    spot = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        words[place] = word[:spot] + word[spot + 1 :]
    elif kind == 1:
        words[place] = word[:spot] + word[spot] + word[spot:]
    else:
        words[place] = word[:spot] + word[spot + 1] + word[spot] + word[spot + 2 :]
    return " ".join(words)
