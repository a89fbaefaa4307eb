"""What a row of somebody's dataset says: a pair, a thumb, a demonstration or a question, in chat messages.

Reads TRL's formats (preference with an explicit or an implicit prompt, unpaired preference, prompt-completion,
language modelling, prompt-only; standard and conversational) and what is common beside them: ShareGPT's
``conversations``, Alpaca's ``instruction`` and ``input``, transcripts with ``Human:`` and ``Assistant:``. A row that is
none of these, or broken, raises `BadRow` with a reason in words. Pure; it knows no files and no method.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from memory.schema import Message, Role

Prompt = tuple[Message, ...]
_CONTEXTS = ("prompt", "messages", "conversations", "instruction", "question", "query")
_REPLIES = ("completion", "output", "response", "answer")
_LABELS = ("label", "kto_tag")
_SYSTEMS = ("system", "system_prompt")
_ROLES: Mapping[str, Role] = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
}
_TRUTHS = {"true": True, "1": True, "+1": True, "false": False, "0": False, "-1": False}
_TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class BadRow(ValueError):
    """A row that says nothing that could be learned from, with the reason."""


@dataclass(frozen=True)
class Pair:
    """`chosen` was preferred to `rejected`."""

    prompt: Prompt
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Thumb:
    """A reply was liked (`label`) or not."""

    prompt: Prompt
    completion: str
    label: bool


@dataclass(frozen=True)
class Demonstration:
    """A reply as it should be."""

    prompt: Prompt
    completion: str


@dataclass(frozen=True)
class Question:
    """A prompt without any reply."""

    prompt: Prompt


Said = Pair | Thumb | Demonstration | Question


def read_row(columns: Mapping[str, Any]) -> list[Said]:
    """What the row says; several demonstrations where it is a conversation with several replies. Raises `BadRow`."""
    present = {name: value for name, value in columns.items() if value is not None}
    sides = [side for side in _SIDES if side in present]
    if len(sides) == 1:
        raise BadRow(f"{sides[0]} without {'rejected' if sides == ['chosen'] else 'chosen'}")
    if sides:
        return [_pair(present)]
    context = next((name for name in _CONTEXTS if name in present), "")
    if not context:
        if "text" in present:
            return _demonstrations(_messages(present["text"], "text"))
        raise BadRow(f"columns of no known format: {', '.join(sorted(columns)) or 'none'}")
    return _from_context(present, _with_system(_context(present, context), present))


def _from_context(present: Mapping[str, Any], messages: Prompt) -> list[Said]:
    reply = next((name for name in _REPLIES if name in present), "")
    label = next((name for name in _LABELS if name in present), "")
    if reply:
        prompt, completion = _asked(messages), _reply(present[reply], reply, messages)
    elif messages[-1].role == "assistant":
        if not label:
            return _demonstrations(messages)
        prompt, completion = _asked(messages[:-1]), _text(messages[-1].content, "the reply")
    elif label:
        raise BadRow("a label without a reply")
    else:
        return [Question(_asked(messages))]
    if label:
        return [Thumb(prompt, completion, _truth(present[label]))]
    return [Demonstration(prompt, completion)]


def _pair(present: Mapping[str, Any]) -> Pair:
    context = next((name for name in _CONTEXTS if name in present), "")
    if context:
        messages = _with_system(_context(present, context), present)
        chosen = _reply(present["chosen"], "chosen", messages)
        rejected = _reply(present["rejected"], "rejected", messages)
        pair = Pair(_asked(messages), chosen, rejected)
    else:
        pair = _implicit(present)
    if pair.chosen == pair.rejected:
        raise BadRow("chosen and rejected are the same")
    return pair


def _implicit(present: Mapping[str, Any]) -> Pair:
    """The prompt is what both replies begin with."""
    if all(isinstance(present[side], str) and not _is_structured(present[side]) for side in _SIDES):
        letters = zip(present["chosen"], present["rejected"], strict=False)
        begun = "".join(ours for ours, theirs in takewhile(lambda both: both[0] == both[1], letters))
        begun = begun[: max((at + 1 for at, letter in enumerate(begun) if letter.isspace()), default=0)]
        prompt = _with_system((Message("user", _text(begun, "the prompt")),), present)
        return Pair(prompt, *(_text(present[side][len(begun) :], side) for side in _SIDES))
    chosen, rejected = (_messages(present[side], side) for side in _SIDES)
    if chosen == rejected:
        raise BadRow("chosen and rejected are the same")
    shared = len(chosen) - 1
    if len(rejected) != len(chosen) or rejected[:shared] != chosen[:shared]:
        raise BadRow("chosen and rejected part before their last reply")
    if {chosen[-1].role, rejected[-1].role} != {"assistant"}:
        raise BadRow("chosen or rejected does not end with a reply of the assistant")
    prompt = _with_system(_asked(chosen[:shared]), present)
    return Pair(prompt, _text(chosen[-1].content, "chosen"), _text(rejected[-1].content, "rejected"))


_SIDES = ("chosen", "rejected")


def _context(present: Mapping[str, Any], name: str) -> Prompt:
    value = present[name]
    if name == "instruction" and isinstance(value, str) and isinstance(present.get("input"), str):
        value = f"{value}\n\n{present['input']}".strip()
    messages = _messages(value, name)
    # A transcript may end with the name of who is to speak.
    return messages[:-1] if messages[-1].role == "assistant" and not messages[-1].content else messages


def _messages(value: Any, name: str) -> Prompt:
    """Chat messages out of a text (the user's, or a transcript), a list of messages, or either written as JSON."""
    if isinstance(value, str):
        if _is_transcript(value):
            return _transcript(value)
        inside = _json_messages(value)
        if inside is None:
            if name == "text":
                raise BadRow("a text that is no transcript of a chat")
            return (Message("user", _text(value, f"the {name}" if name == "prompt" else name)),)
        value = inside
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, bytes) or not value:
        raise BadRow(f"{name} is {_kind(value)}, not text or messages")
    return tuple(_message(item, name) for item in value)


def _message(item: Any, name: str) -> Message:
    if not isinstance(item, Mapping):
        raise BadRow(f"{name} holds {_kind(item)} where a message should be")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if str(role).lower() not in _ROLES:
        raise BadRow(f"a message by {role!r}")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(_part(part) for part in content)
    if not isinstance(content, str):
        raise BadRow(f"a message whose content is {_kind(content)}, not text")
    return Message(_ROLES[str(role).lower()], _decodable(content))


def _part(part: Any) -> str:
    """A piece of a message that may hold pictures too."""
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise BadRow("a message with something other than text in it")


def _reply(value: Any, name: str, messages: Prompt) -> str:
    """One reply of the assistant, given alone or with the prompt before it."""
    if isinstance(value, str) and not _is_structured(value):
        return _text(value, name)
    given = _messages(value, name)
    spoken = tuple(message for message in messages if message.role != "system")
    said = tuple(message for message in given if message.role != "system")
    if len(said) > 1 and said[:-1] == spoken:
        said = said[-1:]
    if len(said) != 1:
        raise BadRow(f"{name} is {len(said)} messages; one reply to the prompt is needed")
    if said[0].role != "assistant":
        raise BadRow(f"{name} is a message by the {said[0].role}")
    return _text(said[0].content, name)


def _demonstrations(messages: Prompt) -> list[Said]:
    found: list[Said] = [
        Demonstration(messages[:at], message.content.strip())
        for at, message in enumerate(messages)
        if message.role == "assistant" and message.content.strip() and _ends_with_the_user(messages[:at])
    ]
    if not found:
        raise BadRow("a conversation without a reply to the user")
    return found


def _with_system(messages: Prompt, present: Mapping[str, Any]) -> Prompt:
    system = next((present[name] for name in _SYSTEMS if isinstance(present.get(name), str)), "")
    if not system.strip() or messages[0].role == "system":
        return messages
    return (Message("system", _decodable(system)), *messages)


def _asked(messages: Prompt) -> Prompt:
    if not _ends_with_the_user(messages):
        raise BadRow("a prompt that does not end with the user's message")
    _text(messages[-1].content, "the prompt")
    return messages


def _ends_with_the_user(messages: Prompt) -> bool:
    return bool(messages) and messages[-1].role == "user"


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{name} is {_kind(value)}, not text")
    if not value.strip():
        raise BadRow(f"{name} is blank")
    return _decodable(value).strip()


def _decodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow("text that is not UTF-8") from None
    return text


def _truth(value: Any) -> bool:
    truth = _TRUTHS.get(str(value).strip().lower())
    if truth is None:
        raise BadRow(f"a label that is {value!r}" if str(value).strip() else "a blank label")
    return truth


def _is_structured(text: str) -> bool:
    return _is_transcript(text) or _json_messages(text) is not None


def _is_transcript(text: str) -> bool:
    first = _TRANSCRIPT.match(text.lstrip("\n"))
    return first is not None and first[1] == "Human"


def _transcript(text: str) -> Prompt:
    pieces = _TRANSCRIPT.split(_decodable(text.lstrip("\n")))
    named = zip(pieces[1::2], pieces[2::2], strict=True)
    return tuple(Message(_ROLES[speaker.lower()], said.strip()) for speaker, said in named)


def _json_messages(text: str) -> list[Any] | None:
    """Messages that were written into a cell as JSON; None for any other text, JSON or not."""
    if not text.lstrip().startswith(("[{", "[ {", "{")):
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    listed = [value] if isinstance(value, dict) else value
    keys = [set(item) if isinstance(item, dict) else set() for item in listed]
    speak = keys and all({"role", "content"} <= those or {"from", "value"} <= those for those in keys)
    return listed if speak else None


def _kind(value: Any) -> str:
    named = {bool: "a boolean", int: "a number", float: "a number", dict: "an object", type(None): "nothing"}
    return named.get(type(value), f"a {type(value).__name__}")
