"""What puts a conversation in short: sentences picked out of it, or any LangChain chat model asked to write.

Both are a `memory.strategies.summary.Summarise`. Picking needs no model and invents nothing, so it suits bases too
small to summarise; writing is for models that can. This module keeps no summary and knows no particular model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_core.messages import HumanMessage, SystemMessage

from memory.bm25 import corpus_of
from memory.schema import Message
from memory.words import words_of

if TYPE_CHECKING:
    from langchain_core.language_models.chat_models import BaseChatModel

_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")
_NAMES_OR_NUMBERS = re.compile(r"(?<=[\w,;:'’] )[A-Z][\w'’]+|\d")
_ABOUT_THE_PERSON = re.compile(r"\b(I|I'm|I've|I'd|my|mine|we|our|remember)\b", re.IGNORECASE)
_SPEAKERS = {"user": "Person", "assistant": "You", "system": "System"}
SHORTEST = 3
"""Words below which a sentence tells nothing ("Thank you!")."""
ASKED = (
    "You keep the notes of a conversation. Rewrite the notes so that they also hold what is new. Keep names, numbers, "
    "dates, wishes and decisions, and what the person said about themselves. Write plain sentences, at most {words} "
    "words, and nothing else."
)


@dataclass(frozen=True)
class _Line:
    """A sentence, its length in words, how rare each of its words is, and what counts for or against it."""

    text: str
    length: int
    rarity: Mapping[str, float]
    factor: float

    def worth(self, told: set[str]) -> float:
        """What the sentence adds to the words that are `told` already, for its length."""
        return (
            self.factor
            * sum(rare for word, rare in self.rarity.items() if word not in told)
            / (self.length + 2)
        )


def pick_sentences(so_far: str, said: Sequence[Message], most_words: int) -> str:
    """The sentences that tell most, in the order in which they were said, one to a line.

    Worth is the rarity of the words that a sentence adds to those picked before it; names, numbers and what the person
    says about themselves count for more, questions for less. Lines kept before compete anew with what was said since.
    """
    texts = [line for line in so_far.splitlines() if line.strip()]
    texts += [
        f"{_SPEAKERS[message.role]}: {sentence}" for message in said for sentence in _sentences(message)
    ]
    lines = _weighed(list(dict.fromkeys(texts)))
    picked: list[int] = []
    told: set[str] = set()
    left = most_words
    while True:
        open_places = [at for at, line in enumerate(lines) if at not in picked and line.length <= left]
        worth = {at: lines[at].worth(told) for at in open_places}
        best = max(open_places, key=lambda at: (worth[at], at), default=None)
        if best is None or worth[best] <= 0:
            return "\n".join(lines[at].text for at in sorted(picked))
        picked.append(best)
        told |= lines[best].rarity.keys()
        left -= lines[best].length


class WrittenSummary:
    """Summaries written by `model`, any LangChain chat model. Call it as a `Summarise`."""

    def __init__(self, model: BaseChatModel) -> None:
        self._model = model

    def __call__(self, so_far: str, said: Sequence[Message], most_words: int) -> str:
        """The model's words, cut at twice the length asked for, since small models do not count.

        Raises what the model raises; whoever runs this in the background tries again later.
        """
        news = "\n".join(f"{_SPEAKERS[message.role]}: {message.content}" for message in said)
        notes = so_far.strip() or "(none yet)"
        answer = self._model.invoke(
            [
                SystemMessage(ASKED.format(words=most_words)),
                HumanMessage(f"Notes so far:\n{notes}\n\nWhat is new:\n{news}\n\nThe notes, rewritten:"),
            ]
        )
        words = str(answer.text).split(" ")
        return " ".join(words[: 2 * most_words]).strip()


def _sentences(message: Message) -> list[str]:
    found = (" ".join(sentence.split()) for sentence in _SENTENCE.findall(message.content))
    return [sentence for sentence in found if len(sentence.split()) >= SHORTEST]


def _weighed(texts: Sequence[str]) -> list[_Line]:
    speeches = [text.partition(": ")[2] for text in texts]
    words = [words_of(speech) for speech in speeches]
    corpus = corpus_of(words)
    lines = []
    for text, speech, held in zip(texts, speeches, words, strict=True):
        factor = 2.0 if text.startswith("Person") and _ABOUT_THE_PERSON.search(speech) else 1.0
        factor *= 1.5 if _NAMES_OR_NUMBERS.search(speech) else 1.0
        factor *= 0.3 if speech.rstrip().endswith("?") else 1.0
        lines.append(_Line(text, len(text.split()), {word: corpus.idf(word) for word in held}, factor))
    return lines
