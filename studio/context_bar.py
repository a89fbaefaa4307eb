"""What the policy is going to see: how much of its room is used and by what, and the exact prompt, as JSON values.

Reading only: the prompt is the one that `studio.reminding` would make for a next message, with three dots in its place.
It also says what is about to be let go of, before that happens. This module knows no page and no browser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory.past import Followed, Past
from memory.schema import Conversation, Message
from memory.strategies.choosing import NAMES
from memory.strategies.preparing import Part, Prepared
from studio.intake import ChatRefused

if TYPE_CHECKING:
    from studio.build import Studio

NEXT = "…"
NEARLY_FULL = 0.8
LONGEST_SHOWN = 60
LABELS = {
    "system": "Instructions",
    "facts": "What you told it",
    "summary": "Summary",
    "recalled": "Recalled",
    "turns": "Messages",
}
WAYS = {
    "everything": "Everything, or refuse",
    "last_turns": "The last turns",
    "token_budget": "As much as fits",
    "summary": "A summary, then as much as fits",
    "recall": "Earlier passages that matter, then as much as fits",
    "summary+recall": "Summary and earlier passages",
}
View = dict[str, Any]


def context(studio: Studio, owner: str, conversation_id: str | None) -> View:
    """Of a conversation (None: one that has not begun): budget, parts with their tokens, prompt, and what goes next."""
    chosen = {
        "ways": [{"name": name, "label": WAYS[name.partition(":")[0]]} for name in NAMES],
        "default": studio.settings.remember,
        "facts": studio.settings.remember_facts,
        "shares": studio.settings.share_links,
    }
    if conversation_id is None:
        return chosen | {
            "budget": studio.reminder.budget,
            "used": 0,
            "parts": [],
            "prompt": [],
            "leaving": "",
        }
    conversation = studio.chat.owned.get(owner, conversation_id)
    past = Followed(studio.conversations.past(conversation_id), Message("user", NEXT))
    chosen |= {
        "memory": conversation.memory,
        "elsewhere": conversation.elsewhere,
        "pinned": conversation.pinned,
        "shared": conversation.shared,
    }
    try:
        prepared = studio.reminder.prepare(conversation, past)
    except ChatRefused as error:
        return chosen | {
            "budget": studio.reminder.budget,
            "used": studio.reminder.budget,
            "parts": [],
            "prompt": [],
            "leaving": str(error),
        }
    return chosen | {
        "budget": studio.reminder.budget,
        "used": prepared.tokens,
        "parts": parts_of(studio, prepared),
        "prompt": [{"role": message.role, "text": message.content} for message in prepared.messages],
        "leaving": _leaving(studio, conversation, past, prepared),
    }


def parts_of(studio: Studio, prepared: Prepared) -> list[View]:
    """Each part with its tokens; together they are the whole prompt's, the template's own marks with the messages."""
    nothing = studio.policy.count_tokens([Message("user", "")])

    def measure(part: Part) -> int:
        return studio.policy.count_tokens([Message("user", part.text)]) - nothing

    before = [part for part in prepared.parts if part.kind != "turns"]
    tokens = [measure(part) for part in before]
    turns = [part for part in prepared.parts if part.kind == "turns"]
    sizes = [*zip(before, tokens, strict=True), *((part, prepared.tokens - sum(tokens)) for part in turns)]
    return [
        {"kind": part.kind, "label": LABELS[part.kind], "tokens": size, "text": part.text}
        for part, size in sizes
    ]


def _leaving(studio: Studio, conversation: Conversation, past: Past, prepared: Prepared) -> str:
    """A sentence about what is left out, or about to be; empty while there is room."""
    spoken_for = {part.kind for part in prepared.parts}
    if prepared.first > 0:
        how = {"summary": "in short, in the summary", "recalled": "where they matter"}
        kept = " and ".join(words for kind, words in how.items() if kind in spoken_for)
        rest = f" It still has them {kept}." if kept else ""
        many = f"the first {prepared.first} messages" if prepared.first > 1 else "the first message"
        return f"The model no longer sees {many} of this conversation.{rest}"
    if prepared.tokens < NEARLY_FULL * studio.reminder.budget or past.length < 3:
        return ""
    first = past.stretch(0, 1)[0].message.content
    shown = first if len(first) <= LONGEST_SHOWN else f"{first[:LONGEST_SHOWN].rstrip()}…"
    way = conversation.memory or studio.settings.remember
    if way == "everything":
        return "The conversation nearly fills the model's room. After that it will take no further message."
    return f"The conversation nearly fills the model's room. The first to be let go of is “{shown}”."
