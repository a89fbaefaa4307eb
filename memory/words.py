"""The words by which what was said is found again: the same for the database's index, for ranking and for hashing.

Letters lose case and accents, English plurals their ending; Chinese, Japanese and Korean, which write no spaces, are
taken as single characters and pairs. A word comes out in ASCII letters and digits alone, so that no database reads it
differently than another. This module knows no database and no ranking, and leaves no word out: how much a word tells
is for the ranking.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

LONGEST_WORD = 48
"""Characters of a word that count; what follows is left off, so that pasted data makes no endless words."""

_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_RUNS = re.compile(f"[{_SPACELESS}]+|[^\\W_{_SPACELESS}]+(?:['’][^\\W\\d_]+)?")
_SPACELESS_RUN = re.compile(f"[{_SPACELESS}]+")
_NOT_ASCII = re.compile(r"[^a-z0-9]")


def words_of(text: str) -> list[str]:
    """The words of `text` in their order, repeats included."""
    return [_in_ascii(word) for run in _RUNS.findall(_plain(text)) for word in _words_of_run(run)]


def _plain(text: str) -> str:
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    without_accents = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return unicodedata.normalize("NFC", without_accents)


def _words_of_run(run: str) -> Iterator[str]:
    if _SPACELESS_RUN.fullmatch(run):
        yield from run
        yield from (first + second for first, second in pairwise(run))
        return
    stem, _, ending = re.sub("’", "'", run).partition("'")
    yield _singular(stem + ("" if ending == "s" else ending))


def _singular(word: str) -> str:
    """Harman's S-stemmer (1991): the weakest one, which errs least in texts that are not English."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if len(word) > 4 and word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1]


def _in_ascii(word: str) -> str:
    """Other letters by their number, so that the beginning of a word stays the beginning of what is written for it."""
    return _NOT_ASCII.sub(lambda letter: f"u{ord(letter[0]):05x}", word[:LONGEST_WORD])
