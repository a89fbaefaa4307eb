"""Contractions: "it is" to "it's" and back. Knows English at the level of word pairs; knows nothing of meaning."""

from __future__ import annotations

import re

_CONTRACTIONS = {
    "it is": "it's",
    "they are": "they're",
    "that is": "that's",
    "here is": "here's",
    "what is": "what's",
    "there is": "there's",
    "I am": "I'm",
    "I would": "I'd",
    "I will": "I'll",
    "I have": "I've",
    "you are": "you're",
    "you will": "you'll",
    "we are": "we're",
    "do not": "don't",
    "does not": "doesn't",
    "cannot": "can't",
    "is not": "isn't",
    "are not": "aren't",
}
_CONTRACTIBLE = re.compile(
    r"(?P<before>\b\w+ )?\b(?P<long>" + "|".join(_CONTRACTIONS) + r")(?= [a-z0-9])", re.IGNORECASE
)
_EXPANDABLE = re.compile(
    r"\b(" + "|".join(re.escape(s) for s in _CONTRACTIONS.values()) + r")\b", re.IGNORECASE
)
_BLOCKING = {"than ", "as ", "what ", "how ", "where ", "who ", "which ", "when ", "like ", "whatever "}


def contract(text: str) -> str:
    """ "It is" to "It's" and so on, wherever a word follows and English allows it."""

    def shorten(match: re.Match[str]) -> str:
        before, long = match["before"] or "", match["long"]
        short = _CONTRACTIONS.get(long) or _CONTRACTIONS[long[0].lower() + long[1:]]
        if before.lower() in _BLOCKING or (
            long == "I have" and not text[match.end() :].startswith(" learned")
        ):
            return before + long
        return before + (short if short[0] == long[0] else long[0] + short[1:])

    return _CONTRACTIBLE.sub(shorten, text)


def expand(text: str) -> str:
    """The reverse of `contract`."""
    longs = {short.lower(): long for long, short in _CONTRACTIONS.items()}

    def write_out(match: re.Match[str]) -> str:
        long = longs[match[0].lower()]
        return match[0][0] + long[1:]

    return _EXPANDABLE.sub(write_out, text)
