"""Messages to token ids, so that the template's control tokens come from the template alone.

A person may type ``<|im_end|>`` or anything else that looks like markup: it stays text. For texts without such
strings the ids are exactly those of ``tokenizer.apply_chat_template``. Where a template writes its roles in ordinary
words instead of control tokens (``USER:``), nothing tells a person's words from them, here or anywhere.

A template with a thinking switch (Qwen3, SmolLM3) gets it off: people judge replies, not the thoughts before them, and
a short reply would be used up by them. This module knows no particular model family; it reads everything from the
tokenizer and its template, and it never loads or runs a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from memory.schema import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLAIN = "{{ messages[0]['content'] }}{% if false %}{% raw %}CONTROLS{% endraw %}{% endif %}"
"""A template that adds nothing. The tokenizer keeps those tokens out of texts that a template's own text names."""
_SWITCHES = {"enable_thinking": False}
_MARKS = ("qzxa", "qzxb")


class PromptError(ValueError):
    """Messages that the model's chat template cannot express; the message says why and what to do."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The token ids of `messages` with the opening of the next assistant message.

    Where the template knows no system role (Gemma) or drops it, the system text is put before the first user message;
    where it insists on alternating roles, neighbours of one role are joined. Raises `PromptError` for no messages, no
    template, or messages that the template refuses or swallows.
    """
    _require_template(tokenizer)
    if not messages:
        raise PromptError("There are no messages to answer; send at least one user message.")
    problem = ""
    for candidate in _forms(messages):
        try:
            _check_skeleton(tokenizer, candidate)
            ids = _apply(tokenizer, candidate, opening=True)
        except (TemplateError, _Swallowed) as error:
            problem = problem or str(error)
            continue
        _check_controls(tokenizer, candidate, ids)
        return ids
    roles = ", ".join(message.role for message in messages)
    raise PromptError(f"The model's chat template cannot express messages with the roles {roles}: {problem}")


def encode_reply(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of an assistant's `text` as they follow `encode_prompt`'s, with the end-of-turn token last.

    They are those of the template, unless it changes the text by more than white space at its borders.
    """
    _require_template(tokenizer)
    question = Message("user", _MARKS[0])
    prompt = _apply(tokenizer, [question], opening=True)
    whole = _apply(tokenizer, [question, Message("assistant", text)], opening=False)
    ends, plain = end_of_turn_ids(tokenizer), encode_text(tokenizer, text)
    if whole[: len(prompt)] == prompt:
        for position in range(len(prompt), len(whole)):
            if whole[position] in ends:
                reply = whole[len(prompt) : position]
                if _written(tokenizer, reply) == _written(tokenizer, plain):
                    return [*reply, whole[position]]
                break
    return [*plain, _end_of_turn(tokenizer)]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of `text` alone: no template, no beginning-of-text token, no control tokens."""
    controls = _controls(tokenizer)
    if not controls.pattern.search(text):
        return list(tokenizer.encode(text, add_special_tokens=False))
    ids: list[int] = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        chat_template=_PLAIN.replace("CONTROLS", " ".join(controls.tokens.values())),
        tokenize=True,
        return_dict=False,
        sanitize_control_tokens=True,
    )
    return list(ids)


def count_tokens(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> int:
    """How many tokens `encode_prompt` makes of `messages`.

    They may begin with a reply, as the end of a conversation that is being trimmed does: where the template insists on
    a user message first, an empty one is counted in front.
    """
    try:
        return len(encode_prompt(tokenizer, messages))
    except PromptError:
        system = [message for message in messages if message.role == "system"]
        said = [message for message in messages if message.role != "system"]
        if not said or said[0].role != "assistant":
            raise
        return len(encode_prompt(tokenizer, [*system, Message("user", ""), *said]))


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end an assistant's message: the one that the template writes there, and end-of-text."""
    ends = {_end_of_turn(tokenizer)}
    if tokenizer.eos_token_id is not None:
        ends.add(int(tokenizer.eos_token_id))
    return ends


class _Swallowed(ValueError):
    """The template left a message out."""


def _forms(messages: Sequence[Message]) -> list[list[Message]]:
    """The messages as they are, then in forms that stricter templates accept, without repeats."""
    as_is = list(messages)
    folded = _fold_system(as_is)
    forms: list[list[Message]] = []
    for form in (as_is, folded, _join_neighbours(as_is), _join_neighbours(folded)):
        if form not in forms:
            forms.append(form)
    return forms


def _fold_system(messages: list[Message]) -> list[Message]:
    """Move the system texts in front of the first user message."""
    system = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    first = next((index for index, message in enumerate(others) if message.role == "user"), None)
    if not system or first is None:
        return messages
    others[first] = Message("user", "\n\n".join([*system, others[first].content]))
    return others


def _join_neighbours(messages: list[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            joined[-1] = Message(message.role, f"{joined[-1].content}\n\n{message.content}")
        else:
            joined.append(message)
    return joined


def _skeleton(messages: Sequence[Message]) -> list[Message]:
    """The same messages with harmless words for texts; blank texts stay, since templates may look for them."""
    return [
        message if not message.content.strip() else Message(message.role, f"{_MARKS[0]}{index}{_MARKS[1]}")
        for index, message in enumerate(messages)
    ]


def _check_skeleton(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> None:
    """Raise `_Swallowed` if a message with text does not come out of the template."""
    skeleton = _skeleton(messages)
    rendered: Any = tokenizer.apply_chat_template(
        _as_dicts(skeleton), tokenize=False, add_generation_prompt=True, **_SWITCHES
    )
    for message in skeleton:
        if message.content.strip() and message.content not in rendered:
            raise _Swallowed(f"it leaves out the {message.role} message")


def _check_controls(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], ids: list[int]) -> None:
    """Raise `PromptError` unless `ids` hold the control tokens of the bare template, in its order, and no other.

    The tokenizer keeps control tokens *inside* a text from being read as such; this also catches one that would form
    where a text touches the template's own words.
    """
    controls = set(_controls(tokenizer).tokens) - {tokenizer.unk_token_id}
    bare = _apply(tokenizer, _skeleton(messages), opening=True)
    if [i for i in ids if i in controls] != [i for i in bare if i in controls]:
        raise PromptError(
            "A message would change the structure of the conversation: together with the chat template its text "
            "forms a control token. Remove markup such as <|...|> from its beginning and end."
        )


@dataclass(frozen=True)
class _Controls:
    """The tokens that nobody's text may become, by id, and a pattern that finds any of them in a text."""

    tokens: dict[int, str]
    pattern: re.Pattern[str]


def _controls(tokenizer: PreTrainedTokenizerBase) -> _Controls:
    template = str(tokenizer.get_chat_template()) if tokenizer.chat_template else ""
    return _controls_of(tokenizer, template, len(tokenizer))


@lru_cache(maxsize=8)
def _controls_of(tokenizer: PreTrainedTokenizerBase, template: str, size: int) -> _Controls:
    """The special tokens, and other added ones that `template` writes. White space among the added tokens (Gemma's
    line breaks) is text. `size` is the tokenizer's, so that one which grows is looked at anew.

    Remembered, since listing the added tokens takes long where there are thousands (Gemma: 11 ms).
    """
    named = tokenizer.chat_control_tokens or ()
    tokens = {
        token_id: token.content
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special
        or token.content in named
        or (token.content in template and not token.content.isspace())
    }
    tokens |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    longest_first = sorted(tokens.values(), key=len, reverse=True)
    return _Controls(tokens, re.compile("|".join(map(re.escape, longest_first)) or "(?!)"))


def _written(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)).strip()


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The first control token that the template writes after an assistant's text, or end-of-text."""
    _require_template(tokenizer)
    rendered: Any = tokenizer.apply_chat_template(
        _as_dicts([Message("user", _MARKS[0]), Message("assistant", _MARKS[1])]), tokenize=False, **_SWITCHES
    )
    after = rendered.rpartition(_MARKS[1])[2]
    controls = tokenizer.added_tokens_decoder
    for token_id in tokenizer.encode(after, add_special_tokens=False):
        if token_id in controls and not controls[token_id].content.isspace():
            return int(token_id)
    if tokenizer.eos_token_id is None:
        raise PromptError(
            "The tokenizer names no end-of-text token and its chat template ends replies with none, so no reply "
            "would ever end. Set eos_token in tokenizer_config.json."
        )
    return int(tokenizer.eos_token_id)


def _apply(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, opening: bool) -> list[int]:
    pattern = _controls(tokenizer).pattern
    ids: Any = tokenizer.apply_chat_template(
        _as_dicts(messages),
        tokenize=True,
        add_generation_prompt=opening,
        return_dict=False,
        # Slow where there are thousands of added tokens, and without effect on texts that name no control token.
        sanitize_control_tokens=any(pattern.search(message.content) for message in messages),
        **_SWITCHES,
    )
    return list(ids)


def _as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise PromptError(
            f"The tokenizer of {tokenizer.name_or_path or 'this model'} has no chat template, so it cannot be told "
            "who speaks. Choose an instruct or chat model."
        )
