"""Rows of preference data as the field writes them, read into `memory.entries`.

TRL's *preference* (conversational, plain text, and with the prompt inside both replies) and *unpaired preference*;
ShareGPT's and Alpaca's spellings of the same; HH-RLHF's transcripts; rankings, ours and Open Assistant's trees.
Everything is checked for its type, because real files hold booleans where a reply should be. Nothing is guessed: a row
that cannot be understood raises `BadRow` with the reason. This module reads no file and no database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memory.entries import BadRow, Entry, Origin, Prompt, Reply, choice, ranking, thumb
from memory.schema import Message

Row = Mapping[str, Any]
_ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "system": "system",
}
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def preference(row: Row, origin: Origin) -> Iterator[Entry]:
    """``{prompt, chosen, rejected}`` in any of its spellings."""
    prompt = _prompt_of(row)
    chosen, rejected = _field(row, "chosen"), _field(row, "rejected")
    if not prompt:
        prompt, chosen, rejected = _shared_beginning(chosen, rejected)
    yield choice(prompt, (Reply(_reply(chosen)), Reply(_reply(rejected))), "A", origin)


def unpaired(row: Row, origin: Origin) -> Iterator[Entry]:
    """``{prompt, completion, label}``, or ``{messages, label}`` whose last message is the reply."""
    label = _field(row, "label")
    if not isinstance(label, bool) and label not in (0, 1):
        raise BadRow(f"the label is {label!r}; expected true or false")
    if "messages" in row:
        *before, last = messages_of(row["messages"])
        if last.role != "assistant":
            raise BadRow(f"the last message is of role {last.role!r}; expected the assistant's")
        prompt, completion = tuple(before), last.content
    else:
        prompt, completion = _prompt_of(row), _reply(_field(row, "completion"))
    reasons = [reason for reason in [row.get("reason")] if isinstance(reason, str) and reason]
    yield thumb(prompt, Reply(completion), bool(label), origin, reasons=reasons)


def hh_rlhf(row: Row, origin: Origin) -> Iterator[Entry]:
    """``{chosen, rejected}`` as whole transcripts, which differ in what stands after the last ``Assistant:``."""
    sides = []
    for name in ("chosen", "rejected"):
        text = _field(row, name)
        if not isinstance(text, str) or _ASSISTANT not in text:
            raise BadRow(f"{name} is no transcript with Human: and Assistant:")
        sides.append(_transcript(text))
    if sides[0][0] != sides[1][0]:
        raise BadRow("the two transcripts differ before the last reply; a pair needs one prompt")
    yield choice(sides[0][0], (Reply(sides[0][1]), Reply(sides[1][1])), "A", origin)


def ranked(row: Row, origin: Origin) -> Iterator[Entry]:
    """``{prompt, completions}``, best first: what `memory.export` writes as rankings."""
    completions = _field(row, "completions")
    if not isinstance(completions, list):
        raise BadRow(f"completions is a {type(completions).__name__}; expected a list, best first")
    yield ranking(_prompt_of(row), [Reply(_reply(completion)) for completion in completions], origin)


def open_assistant(row: Row, origin: Origin) -> Iterator[Entry]:
    """A message tree: a ranking for every message whose replies were ranked (``rank`` 0 is the best)."""
    tree = _field(row, "prompt")
    if not isinstance(tree, Mapping):
        raise BadRow(f"prompt is a {type(tree).__name__}; expected a message with its replies")
    waiting: list[tuple[Row, Prompt]] = [(tree, ())]
    while waiting:
        node, before = waiting.pop()
        path = (*before, Message(_role(node.get("role")), _text(node.get("text"), "a message of the tree")))
        replies = [reply for reply in node.get("replies") or () if isinstance(reply, Mapping)]
        waiting += [(reply, path) for reply in replies]
        by_rank = {reply["rank"]: reply for reply in replies if isinstance(reply.get("rank"), int)}
        best_first = [Reply(_text(by_rank[rank].get("text"), "a reply")) for rank in sorted(by_rank)]
        if path[-1].role == "user" and len({reply.text for reply in best_first}) > 1:
            yield ranking(path, list(dict.fromkeys(best_first)), origin)


def messages_of(value: Any) -> Prompt:
    """Messages as ``{role, content}`` or ``{from, value}``; a plain text is one message of the user's."""
    if isinstance(value, str):
        return (Message("user", value),)
    if not isinstance(value, Sequence) or not value:
        raise BadRow(f"got a {type(value).__name__} where a list of messages was expected")
    return tuple(_message(item) for item in value)


def _message(item: Any) -> Message:
    if not isinstance(item, Mapping):
        raise BadRow(f"got a {type(item).__name__} where a message was expected")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if isinstance(content, list):  # parts, as multimodal chats write them
        content = "".join(_text(part.get("text"), "a part of a message") for part in content)
    return Message(_role(role), _text(content, "a message's content"))


def _role(role: Any) -> Any:
    if role not in _ROLES:
        raise BadRow(f"a message's role is {role!r}; expected user, assistant or system")
    return _ROLES[role]


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{what} is a {type(value).__name__}; expected text")
    return value


def _field(row: Row, name: str) -> Any:
    if row.get(name) is None:
        raise BadRow(f"there is no {name!r}")
    return row[name]


def _prompt_of(row: Row) -> Prompt:
    """What was asked; empty where the replies bring it along."""
    if row.get("prompt"):
        return messages_of(row["prompt"])
    if row.get("conversations"):
        return messages_of(row["conversations"])
    if isinstance(row.get("instruction"), str):
        given = row.get("input") or ""
        return (Message("user", "\n".join(part for part in (row["instruction"], given) if part)),)
    return ()


def _reply(value: Any) -> str:
    """A reply: a text, a message, or a list with one message, of the assistant's."""
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list):
        said = messages_of(value)
        if len(said) != 1 or said[0].role != "assistant":
            roles = ", ".join(message.role for message in said)
            raise BadRow(f"a reply has messages of {roles}; expected one of the assistant's")
        return said[0].content
    return _text(value, "a reply")


def _shared_beginning(chosen: Any, rejected: Any) -> tuple[Prompt, Any, Any]:
    """The prompt of two conversations that differ in their last message only."""
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise BadRow("there is no 'prompt', and the replies do not bring one along")
    one, other = messages_of(chosen), messages_of(rejected)
    if one[:-1] != other[:-1]:
        raise BadRow("the two conversations differ before the last message; a pair needs one prompt")
    return one[:-1], chosen[-1:], rejected[-1:]


def _transcript(text: str) -> tuple[Prompt, str]:
    """The messages of an HH transcript, and its last reply."""
    said: list[Message] = []
    rest = text
    while rest:
        for opening, role in ((_HUMAN, "user"), (_ASSISTANT, "assistant")):
            if rest.startswith(opening):
                ends = [at for at in (rest.find(mark, 1) for mark in (_HUMAN, _ASSISTANT)) if at > 0]
                end = min(ends, default=len(rest))
                said.append(Message(role, rest[len(opening) : end].strip()))  # type: ignore[arg-type]
                rest = rest[end:]
                break
        else:
            raise BadRow("a transcript does not begin with Human: or Assistant:")
    if said[-1].role != "assistant":
        raise BadRow("a transcript does not end with the assistant's reply")
    return tuple(said[:-1]), said[-1].content
