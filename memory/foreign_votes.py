"""Votes as other chat applications write them, read into `memory.entries`: Chatbot Arena's and Open WebUI's.

Chatbot Arena: ``conversation_a/b`` with ``winner`` (the released conversations), ``response_a/b`` with
``winner_model_a/b`` and JSON inside strings (the released comparisons), and FastChat's raw vote log. Open WebUI: one
row of its feedback export, with the snapshot of the chat. Nothing is guessed: what cannot be understood raises
`BadRow` with the reason. This module reads no file and no database.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memory.entries import BadRow, Entry, Origin, Prompt, Reply, choice, thumb
from memory.foreign_rows import Row, messages_of
from memory.schema import Label, Message

_WINNERS: dict[str, Label] = {
    "model_a": "A",
    "model_b": "B",
    "tie": "tie",
    "tie (bothbad)": "both_bad",
    "both_bad": "both_bad",
    "leftvote": "A",
    "rightvote": "B",
    "tievote": "tie",
    "bothbad_vote": "both_bad",
}


def arena(row: Row, origin: Origin) -> Iterator[Entry]:
    """A vote between two models' conversations. The left one, A, stands first on Arena's page."""
    if "states" in row:
        (first, second), label = _logged(row), row.get("type")
    elif "response_a" in row:
        (first, second), label = _released_texts(row), _winner_of_columns(row)
    else:
        first = messages_of(row.get("conversation_a"))
        second = messages_of(row.get("conversation_b"))
        label = row.get("winner")
    if label not in _WINNERS:
        raise BadRow(f"the vote is {label!r}; expected one of {', '.join(_WINNERS)}")
    for said in (first, second):
        if said[-1].role != "assistant":
            raise BadRow("a conversation does not end with a reply")
    if first[:-1] != second[:-1]:
        raise BadRow("the two conversations differ before the last reply; a pair needs one prompt")
    names = _models_of(row)
    pair = (Reply(first[-1].content, names[0]), Reply(second[-1].content, names[1]))
    yield choice(first[:-1], pair, _WINNERS[str(label)], origin)


def _logged(row: Row) -> tuple[Prompt, Prompt]:
    """The two conversations of a line of FastChat's log, whose messages are ``[speaker, text]``."""
    states = row["states"]
    if not isinstance(states, Sequence) or len(states) != 2:
        raise BadRow("a vote of the log needs two states")
    sides = []
    for state in states:
        said = [
            (speaker, text) for speaker, text in state.get("messages", ())[state.get("offset", 0) :] if text
        ]
        speakers = state.get("roles") or ("user", "assistant")
        roles = {speakers[0]: "user", speakers[1]: "assistant"}
        if any(speaker not in roles or not isinstance(text, str) for speaker, text in said) or not said:
            raise BadRow("a state of the log holds no messages of its two speakers")
        sides.append(tuple(Message(roles[speaker], text) for speaker, text in said))  # type: ignore[arg-type]
    return sides[0], sides[1]


def _released_texts(row: Row) -> tuple[Prompt, Prompt]:
    """The conversations of ``prompt``, ``response_a`` and ``response_b``: texts, or JSON lists of texts in strings."""
    asked, one, other = (_texts(row.get(name), name) for name in ("prompt", "response_a", "response_b"))
    if not len(asked) == len(one) == len(other):
        raise BadRow("prompt and responses have different numbers of messages")
    return _laid_out(asked, one), _laid_out(asked, other)


def _texts(value: Any, name: str) -> list[str]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = [value]
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadRow(f"{name} holds something that is no text")
    return texts


def _laid_out(asked: Sequence[str], answered: Sequence[str]) -> Prompt:
    turns = zip(asked, answered, strict=True)
    return tuple(message for q, a in turns for message in (Message("user", q), Message("assistant", a)))


def _winner_of_columns(row: Row) -> str | None:
    if isinstance(row.get("winner"), str):
        return str(row["winner"])
    marked = [name for name in ("model_a", "model_b", "tie") if row.get(f"winner_{name}") in (1, True, "1")]
    return marked[0] if len(marked) == 1 else None


def _models_of(row: Row) -> tuple[str, str]:
    named = row.get("models")
    pair = named if isinstance(named, list) and len(named) == 2 else [row.get("model_a"), row.get("model_b")]
    first, second = (name if isinstance(name, str) else "" for name in pair)
    return first, second


def open_webui(row: Row, origin: Origin) -> Iterator[Entry]:
    """A thumb with its reasons and comment; where two models answered side by side, also the choice between them."""
    data, meta = _mapping(row, "data"), _mapping(row, "meta")
    value = str(data.get("rating"))
    if value not in ("1", "-1"):
        raise BadRow(f"the rating is {data.get('rating')!r}; expected 1 or -1")
    history = _history_of(row)
    rated = history.get(str(meta.get("message_id")))
    if not isinstance(rated, Mapping):
        raise BadRow(f"the snapshot does not hold the rated message {meta.get('message_id')!r}")
    prompt = _path_above(rated, history)
    reply = _reply_of(rated, data.get("model_id"))
    reasons = [text for text in [data.get("reason")] if isinstance(text, str) and text]
    comment = data["comment"] if isinstance(data.get("comment"), str) else ""
    yield thumb(prompt, reply, value == "1", origin, reasons=reasons, comment=comment)
    beside = [node for node in _siblings_of(rated, history) if node.get("model") in _opponents(data)]
    if len(beside) == 1 and isinstance(beside[0].get("content"), str) and beside[0]["content"].strip():
        other = _reply_of(beside[0], None)
        if (other.text, other.model) != (reply.text, reply.model):
            yield choice(prompt, (reply, other), "A" if value == "1" else "B", origin)


def _mapping(row: Row, name: str) -> Mapping[str, Any]:
    value = row.get(name)
    if not isinstance(value, Mapping):
        raise BadRow(f"{name!r} is missing or no object")
    return value


def _history_of(row: Row) -> Mapping[str, Any]:
    """The messages of the snapshot by id."""
    inside: Any = row.get("snapshot")
    for name in ("chat", "chat", "history", "messages"):
        inside = inside.get(name) if isinstance(inside, Mapping) else None
    if not isinstance(inside, Mapping):
        raise BadRow("there is no snapshot of the chat, so nobody knows what was rated")
    return inside


def _path_above(rated: Mapping[str, Any], history: Mapping[str, Any]) -> Prompt:
    path: list[Message] = []
    above, seen = rated.get("parentId"), set()
    while isinstance(above, str) and above in history and above not in seen:
        seen.add(above)
        node = history[above]
        if not isinstance(node, Mapping):
            raise BadRow(f"message {above!r} of the snapshot is no object")
        path = [*messages_of([node]), *path]
        above = node.get("parentId")
    return tuple(path)


def _siblings_of(rated: Mapping[str, Any], history: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    above = rated.get("parentId")
    return [
        node
        for node in history.values()
        if isinstance(node, Mapping)
        and node is not rated
        and (node.get("parentId"), node.get("role")) == (above, "assistant")
    ]


def _opponents(data: Mapping[str, Any]) -> Sequence[Any]:
    named = data.get("sibling_model_ids")
    return named if isinstance(named, list) else ()


def _reply_of(node: Mapping[str, Any], model: Any) -> Reply:
    text = node.get("content")
    if not isinstance(text, str):
        raise BadRow(f"the rated message is a {type(text).__name__}; expected text")
    name = model if isinstance(model, str) else node.get("model")
    return Reply(text, name if isinstance(name, str) else "")
