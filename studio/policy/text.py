"""Tokens to text, piece by piece, so that no reader ever sees half a character, half an emoji or half a stop word.

It knows a tokenizer and stop words; it knows no model, no batch and no reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_UNREADABLE = "\ufffd"
_JOINER = "\u200d"
_FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
_MOST_HELD = 32
"""Characters held back at most for an emoji that goes on; none is longer."""


class ReplyText:
    """The text of one reply as its tokens arrive.

    `stop` holds words that end the reply; they are cut off, with all that follows. Control tokens give no text.
    """

    def __init__(self, tokenizer: Any, *, stop: Sequence[str] = ()) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._ids: list[int] = []
        self._read = 0
        self._before = ""
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False
        """Whether a stop word has been met."""

    def push(self, token: int) -> str:
        """Take the next token; return the text that is now certain, which is often empty."""
        self._held += self._decode(token)
        if self._cut_at_stop():
            return self._release(len(self._held))
        keep = max(_unfinished_emoji(self._held), _begun_stop(self._held, self._stop))
        return self._release(len(self._held) - keep)

    def flush(self) -> str:
        """The text still held back, at the end of the reply. Bytes that never became a character are dropped."""
        return self._release(len(self._held))

    def _decode(self, token: int) -> str:
        """The text that `token` completes; empty while its bytes are not whole characters.

        Tokens are decoded together with those just before, since the first of a text may lose its space. (The
        tokenizers' own `DecodeStream` raises an error where bytes that are no text follow others, which models that
        fall back to bytes do write.)
        """
        self._ids.append(token)
        text: str = self._backend.decode(self._ids, skip_special_tokens=True)
        if text.endswith(_UNREADABLE):
            return ""
        new = text[len(self._before) :]
        del self._ids[: self._read]
        self._read = len(self._ids)
        self._before = self._backend.decode(self._ids, skip_special_tokens=True)
        return new

    def _release(self, length: int) -> str:
        ready, self._held = self._held[:length], self._held[length:]
        return ready

    def _cut_at_stop(self) -> bool:
        found = [at for word in self._stop if (at := self._held.find(word)) >= 0]
        if found:
            self._held, self.stopped = self._held[: min(found)], True
        return bool(found)


def _begun_stop(text: str, words: Sequence[str]) -> int:
    """The length of the longest end of `text` with which a stop word may have begun."""
    longest = 0
    for word in words:
        for length in range(min(len(word) - 1, len(text)), longest, -1):
            if text.endswith(word[:length]):
                longest = length
                break
    return longest


def _unfinished_emoji(text: str) -> int:
    """The length of the emoji at the end of `text`, which the next token may still extend; 0 if there is none."""
    if not text or not _is_emoji_part(text[-1]):
        return 0
    if _is_flag_letter(text[-1]):
        run = len(text) - len(text.rstrip(_FLAG_LETTERS))
        return 1 if run % 2 else 0  # flags are pairs of letters
    start = len(text) - 1
    while start > 0 and len(text) - start < _MOST_HELD:
        if not (_extends(text[start]) or text[start - 1] == _JOINER):
            break
        start -= 1
    return len(text) - start


def _is_flag_letter(character: str) -> bool:
    return character in _FLAG_LETTERS


def _extends(character: str) -> bool:
    """Whether `character` changes the emoji before it: joiner, variation selector, skin tone, keycap, tag."""
    return (
        character in (_JOINER, "\ufe0e", "\ufe0f", "\u20e3")
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    )


def _is_emoji_part(character: str) -> bool:
    return (
        _extends(character)
        or "\U0001f000" <= character <= "\U0001faff"
        or "\u2600" <= character <= "\u27bf"
        or "\u2190" <= character <= "\u21ff"
        or "\u2b00" <= character <= "\u2bff"
    )
