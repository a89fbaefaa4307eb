"""What replies look like, from their text alone: repetition, sameness, and what is not language at all.

Pure functions of texts; no model and no tokenizer. Words are runs of letters and digits of any script, so the
figures mean the same in any language that separates its words.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from statistics import fmean

from training.report import ReplyFigures

_WORD = re.compile(r"\w+")
_REPLACEMENT = "�"
_HARDLY_POSSIBLE = -9.0
"""Nats: one chance in eight thousand. Nucleus sampling takes no such token, whatever the temperature."""


def reply_figures(
    texts: Sequence[str],
    *,
    questions: Sequence[Hashable],
    tokens: Sequence[int],
    ended: Sequence[bool],
    logprobs: Sequence[Sequence[float]],
) -> ReplyFigures:
    """Figures of one version's replies.

    All sequences run in the order of the questions: the texts, the lengths in tokens, whether each reply
    ended by itself, and the log-probabilities of its tokens under the base, in nats. Without a reply every figure is
    None.
    """
    if not texts:
        return ReplyFigures(0, *[None] * 11)
    empty = [not text.strip() for text in texts]
    punctuation = [not none and not _WORD.search(text) for text, none in zip(texts, empty, strict=True)]
    truncated = [not whole for whole in ended]
    garbled = [is_garbled(text) for text in texts]
    return ReplyFigures(
        replies=len(texts),
        mean_tokens=fmean(tokens),
        fluency=fmean(map(fmean, logprobs)),
        implausible=fmean(min(scores) < _HARDLY_POSSIBLE for scores in logprobs),
        repetition=fmean(repeated_share(text) for text in texts),
        identical=identical_share(texts, questions=questions),
        distinct_2=distinct_share(texts, n=2),
        empty=fmean(empty),
        punctuation=fmean(punctuation),
        truncated=fmean(truncated),
        garbled=fmean(garbled),
        degenerate=fmean(map(any, zip(empty, punctuation, truncated, garbled, strict=True))),
    )


def repeated_share(text: str, *, n: int = 3) -> float:
    """Share of the text's n-grams of words that it has said before: 1 - different / all; 0 for fewer than n
    words.
    """
    grams = _grams(text, n=n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def identical_share(texts: Sequence[str], *, questions: Sequence[Hashable]) -> float:
    """Share of replies that equal, but for case and spacing, a reply to another question."""
    asked: dict[str, set[Hashable]] = defaultdict(set)
    plain = [" ".join(text.casefold().split()) for text in texts]
    for text, question in zip(plain, questions, strict=True):
        asked[text].add(question)
    return fmean(len(asked[text]) > 1 for text in plain)


def distinct_share(texts: Sequence[str], *, n: int) -> float:
    """Different n-grams of words over all replies, as a share of all (distinct-n: Li et al. 2016); 0 without
    any.
    """
    counts = Counter(gram for text in texts for gram in _grams(text, n=n))
    return len(counts) / counts.total() if counts else 0.0


def on_topic(texts: Sequence[str], references: Sequence[str], *, questions: Sequence[Hashable]) -> list[bool]:
    """Whether each of `texts` by its rarer words resembles the references to its own question most of all.

    `texts` and `references` both answer `questions`, in that order. Words are weighted by their inverse document
    frequency among the references, those to one question being one document (cosine of TF-IDF vectors with binary
    counts: Salton and Buckley 1988). So words that occur whatever was asked, such as those of a style, count little. A
    tie with another question's references is no resemblance.
    """
    documents: dict[Hashable, set[str]] = defaultdict(set)
    for reference, question in zip(references, questions, strict=True):
        documents[question] |= _words(reference)
    counts = Counter(word for document in documents.values() for word in document)
    weight = {word: math.log((1 + len(documents)) / (1 + count)) ** 2 for word, count in counts.items()}
    sizes = {
        question: math.sqrt(sum(weight[word] for word in document)) or 1.0
        for question, document in documents.items()
    }

    def resemblance(text: str, question: Hashable) -> float:
        return sum(weight[word] for word in _words(text) & documents[question]) / sizes[question]

    def is_on_topic(text: str, asked: Hashable) -> bool:
        others = (resemblance(text, question) for question in documents if question != asked)
        return resemblance(text, asked) > max(others, default=0.0)

    return list(map(is_on_topic, texts, questions))


def is_garbled(text: str) -> bool:
    """Whether letters and digits are the smaller part of the text, or its bytes made no character."""
    visible = [character for character in text if not character.isspace()]
    return _REPLACEMENT in text or 2 * sum(character.isalnum() for character in visible) < len(visible)


def _words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)}


def _grams(text: str, *, n: int) -> list[tuple[str, ...]]:
    words = [word.casefold() for word in _WORD.findall(text)]
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
