"""Embeddings that need no model and no download: hashed words, as any LangChain `Embeddings` gives them.

Each word and each run of three letters of it is hashed to a place and a sign (Weinberger et al., "Feature hashing for
large scale multitask learning", 2009), weighted by the square root of how often it occurs, and the whole is made one
long. Texts that share words, or parts of words, come close; texts that merely mean the same do not. It knows no text
but the one it is given.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter

from langchain_core.embeddings import Embeddings

from memory.words import words_of

_SMALL_WORDS = 3
"""Words of up to so many letters are mostly the ones that hold a sentence together; they weigh little."""
_SMALL_WEIGHT = 0.25
_PARTS_WEIGHT = 0.3


class HashedEmbeddings(Embeddings):
    """Vectors of `size` numbers, of length 1 (or 0 for a text without words)."""

    def __init__(self, *, size: int = 512) -> None:
        if size < 8:
            raise ValueError(f"The size of the vectors is {size}; expected 8 or more.")
        self._size = size

    @property
    def name(self) -> str:
        """What tells these vectors from others'."""
        return f"hashed-{self._size}"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a text."""
        vector = [0.0] * self._size
        for word, times in Counter(words_of(text)).items():
            weight = math.sqrt(times) * (_SMALL_WEIGHT if len(word) <= _SMALL_WORDS else 1.0)
            self._put(vector, word, weight)
            padded = f"<{word}>"
            for at in range(len(padded) - 2):
                self._put(vector, f"3{padded[at : at + 3]}", weight * _PARTS_WEIGHT)
        length = math.sqrt(math.fsum(value * value for value in vector))
        return [value / length for value in vector] if length else vector

    def _put(self, vector: list[float], feature: str, weight: float) -> None:
        number = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest())
        vector[(number >> 1) % self._size] += weight if number & 1 else -weight
