"""What may enter the chat: a person's text, checked and cleaned, or refused with a reason.

A message is text and nothing but text: right-to-left script, HTML and the words of a chat template pass
unchanged, because the tokenizer downstream never reads them as control tokens. Only what no reader can see
or store is touched: control characters go, line ends become ``\\n``, half of a surrogate pair is refused.
This module knows no conversation, no database and no policy.
"""

from __future__ import annotations

import re
import unicodedata

TITLE_CHARS = 48
_LINE_END = re.compile(r"\r\n?")
_SURROGATE = re.compile("[\ud800-\udfff]")


class ChatRefused(ValueError):
    """The chat cannot do what was asked; the message says what it got, what it expected and what to do.

    Nothing was changed: the person's text belongs back in the composer.
    """


def clean_message(text: str, *, limit: int) -> str:
    """Return `text` without control characters (newline and tab stay), at most `limit` characters long.

    Raises `ChatRefused` when nothing readable is left, when it is too long, or when it holds a lone surrogate
    (no encoding can store one).
    """
    broken = _SURROGATE.search(text)
    if broken:
        raise ChatRefused(
            f"The message holds half a character (U+{ord(broken.group()):04X} at position "
            f"{broken.start() + 1}), which cannot be stored. Type that character again, or paste the text "
            "from another program."
        )
    kept = "".join(
        character
        for character in _LINE_END.sub("\n", text)
        if character in "\n\t" or unicodedata.category(character) != "Cc"
    )
    if not kept.strip():
        raise ChatRefused("The message is empty. Write something and send it again.")
    if len(kept) > limit:
        raise ChatRefused(
            f"The message has {len(kept):,} characters; at most {limit:,} fit. "
            "Shorten it, or send it in several messages."
        )
    return kept


def title_of(text: str) -> str:
    """A conversation's title made from its first message: the first words, cut at a space, on one line."""
    line = " ".join(text.split())
    if len(line) <= TITLE_CHARS:
        return line
    cut = line[:TITLE_CHARS].rsplit(" ", 1)[0]
    return f"{cut.rstrip(' ,;:.-')}…"
