"""BM25: how well a text answers to some words, where rare words tell more than common ones.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the usual k1 = 1.2 and
b = 0.75, and the idf that never falls below zero. Pure arithmetic over words; it knows no text, no database and no
language.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

K1 = 1.2
B = 0.75


@dataclass(frozen=True)
class Corpus:
    """What must be known of all the texts to weigh the words of one: how many there are, how long they are on average
    (in words), and in how many of them each word stands (asked-for words only; a word not listed stands in none).
    """

    texts: float
    average_words: float
    containing: Mapping[str, float]

    def idf(self, word: str) -> float:
        """How much `word` tells: ln(1 + (N - n + 1/2) / (n + 1/2)), never below zero."""
        containing = min(self.containing.get(word, 0.0), self.texts)
        return math.log(1.0 + (self.texts - containing + 0.5) / (containing + 0.5))


def corpus_of(texts: Sequence[Sequence[str]]) -> Corpus:
    """The corpus that `texts` are, each given as its words."""
    containing: Counter[str] = Counter()
    for words in texts:
        containing.update(set(words))
    average = sum(map(len, texts)) / len(texts) if texts else 1.0
    return Corpus(float(len(texts)), max(1.0, average), containing)


def score(asked: Iterable[str], words: Sequence[str], *, corpus: Corpus) -> float:
    """How well a text of these `words` answers to the words `asked` for. 0 where it holds none of them."""
    times = Counter(words)
    norm = K1 * (1.0 - B + B * len(words) / corpus.average_words)
    return sum(
        corpus.idf(word) * times[word] * (K1 + 1.0) / (times[word] + norm)
        for word in set(asked)
        if word in times
    )
