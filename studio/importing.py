"""Conversations out of files that other programs wrote: ours, ChatGPT's ``conversations.json``, Open WebUI's export.

All three are trees of messages; what is not text (images, tools, hidden messages) is left out, and what followed it
follows what came before. Which format a file has is seen from its shape. This module writes nothing, and its errors
are sentences for the person who chose the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from memory.schema import Message, Role
from memory.transplanting import Planted
from studio.exporting import FORMAT

MOST_CONVERSATIONS = 500
MAX_TITLE_CHARS = 120


class Unreadable(ValueError):
    """The file holds no conversations that can be read; the message says why."""


@dataclass(frozen=True)
class Read:
    """A conversation that was read: its messages, parents first, and the key of the one shown last."""

    title: str
    system_prompt: str
    said: tuple[Planted, ...]
    head: str | None


def conversations_in(text: str) -> list[Read]:
    """Every conversation in the file that has a message. Raises `Unreadable` when there is none."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"This file is not JSON (line {error.lineno}: {error.msg}). Choose another one."
        ) from error
    items = data if isinstance(data, list) else [data]
    if len(items) > MOST_CONVERSATIONS:
        raise Unreadable(
            f"This file holds {len(items)} conversations; expected at most {MOST_CONVERSATIONS}."
        )
    found = [_read(item) for item in items]
    kept = [one for one in found if one is not None and one.said]
    if not kept:
        raise Unreadable(
            "This file holds no conversation in a known form. Expected an export of this studio, of ChatGPT or of Open "
            "WebUI."
        )
    return kept


def _read(item: Any) -> Read | None:
    data = _fields(item)
    if data.get("format") == FORMAT:
        return _ours(data)
    if _fields(data.get("mapping")):
        return _chatgpt(data)
    chat = _fields(data.get("chat", item))
    return _open_webui(data, chat) if _fields(chat.get("history")) else None


def _ours(data: Mapping[str, Any]) -> Read:
    rows = [_fields(row) for row in _listed(data.get("messages"))]
    entries = {
        str(row["id"]): (_key(row.get("parent")), _message(row.get("role"), row.get("content")))
        for row in rows
        if "id" in row
    }
    return _made(data.get("title"), entries, head=_key(data.get("head")), system=data.get("system_prompt"))


def _chatgpt(data: Mapping[str, Any]) -> Read:
    entries: dict[str, tuple[str | None, Message | None]] = {}
    for key, row in _fields(data.get("mapping")).items():
        said = _fields(_fields(row).get("message"))
        hidden = _fields(said.get("metadata")).get("is_visually_hidden_from_conversation")
        parts = _listed(_fields(said.get("content")).get("parts"))
        text = "\n".join(part for part in parts if isinstance(part, str))
        message = None if hidden else _message(_fields(said.get("author")).get("role"), text)
        entries[str(key)] = (_key(_fields(row).get("parent")), message)
    return _made(data.get("title"), entries, head=_key(data.get("current_node")))


def _open_webui(data: Mapping[str, Any], chat: Mapping[str, Any]) -> Read:
    history = _fields(chat.get("history"))
    entries = {
        str(key): (
            _key(_fields(row).get("parentId")),
            _message(_fields(row).get("role"), _fields(row).get("content")),
        )
        for key, row in _fields(history.get("messages")).items()
    }
    system = _fields(chat.get("params")).get("system") or chat.get("system")
    title = data.get("title") or chat.get("title")
    return _made(title, entries, head=_key(history.get("currentId")), system=system)


def _made(
    title: Any,
    entries: Mapping[str, tuple[str | None, Message | None]],
    *,
    head: str | None,
    system: str = "",
) -> Read:
    """The tree without its empty places: who followed one of them follows the nearest message above it."""
    spoken = [message for _, message in entries.values() if message is not None and message.role == "system"]
    told = system if isinstance(system, str) and system else (spoken[0].content if spoken else "")
    kept = {key for key, (_, message) in entries.items() if message is not None and message.role != "system"}

    def above(key: str | None) -> str | None:
        seen: set[str] = set()
        while key is not None and key not in kept:
            if key in seen or key not in entries:
                return None
            seen.add(key)
            key = entries[key][0]
        return key

    said = [
        Planted(key, above(entries[key][0]), message)
        for key in _parents_first(entries)
        if key in kept and (message := entries[key][1]) is not None
    ]
    shown = above(head) or (said[-1].key if said else None)
    return Read(title[:MAX_TITLE_CHARS] if isinstance(title, str) else "", told, tuple(said), shown)


def _parents_first(entries: Mapping[str, tuple[str | None, Message | None]]) -> Iterable[str]:
    """The keys in the file's order, each after its parent. What goes round in a circle is left out."""
    placed: dict[str, bool] = {}
    for key in entries:
        line: list[str] = []
        here: str | None = key
        while here is not None and here in entries and here not in placed and here not in line:
            line.append(here)
            here = entries[here][0]
        circle = here in line
        for one in reversed(line):
            placed[one] = not circle
    return [key for key, fine in placed.items() if fine]


def _message(role: Any, content: Any) -> Message | None:
    if (
        not isinstance(role, str)
        or role not in get_args(Role)
        or not isinstance(content, str)
        or not content.strip()
    ):
        return None
    return Message(role, content)


def _key(value: Any) -> str | None:
    return None if value is None else str(value)


def _fields(value: Any) -> Mapping[str, Any]:
    """The fields of an object; none where something else stands in its place."""
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
