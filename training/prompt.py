"""Messages to token ids, so that the template's control tokens come from the template alone.

A person may type ``<|im_end|>`` or anything else that looks like markup: it stays text. For texts without such
strings the ids are exactly those of ``tokenizer.apply_chat_template``. This module knows no particular model family;
it reads everything from the tokenizer and its template, and it never loads or runs a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from memory.schema import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLAIN = "{{ messages[0]['content'] }}"
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
    """The token ids of an assistant's `text` as they follow `encode_prompt`'s, with the end-of-turn token last."""
    _require_template(tokenizer)
    question = Message("user", _MARKS[0])
    prompt = _apply(tokenizer, [question], opening=True)
    whole = _apply(tokenizer, [question, Message("assistant", text)], opening=False)
    ends = end_of_turn_ids(tokenizer)
    if whole[: len(prompt)] == prompt:
        for position in range(len(prompt), len(whole)):
            if whole[position] in ends:
                return whole[len(prompt) : position + 1]
    return [*encode_text(tokenizer, text), _end_of_turn(tokenizer)]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of `text` alone: no template, no beginning-of-text token, no control tokens."""
    ids: list[int] = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        chat_template=_PLAIN,
        tokenize=True,
        return_dict=False,
        sanitize_control_tokens=True,
    )
    return list(ids)


def count_tokens(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> int:
    """How many tokens `encode_prompt` makes of `messages`."""
    return len(encode_prompt(tokenizer, messages))


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
        _as_dicts(skeleton), tokenize=False, add_generation_prompt=True
    )
    for message in skeleton:
        if message.content.strip() and message.content not in rendered:
            raise _Swallowed(f"it leaves out the {message.role} message")


def _check_controls(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], ids: list[int]) -> None:
    """Raise `PromptError` unless `ids` hold the special tokens of the bare template, in its order, and no other.

    The tokenizer keeps control tokens *inside* a text from being read as such; this also catches one that would form
    where a text touches the template's own words.
    """
    special = set(tokenizer.all_special_ids) | {
        token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    special.discard(tokenizer.unk_token_id)
    bare = _apply(tokenizer, _skeleton(messages), opening=True)
    if [i for i in ids if i in special] != [i for i in bare if i in special]:
        raise PromptError(
            "A message would change the structure of the conversation: together with the chat template its text "
            "forms a control token. Remove markup such as <|...|> from its beginning and end."
        )


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The first control token that the template writes after an assistant's text, or end-of-text."""
    _require_template(tokenizer)
    rendered: Any = tokenizer.apply_chat_template(
        _as_dicts([Message("user", _MARKS[0]), Message("assistant", _MARKS[1])]), tokenize=False
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
    ids: Any = tokenizer.apply_chat_template(
        _as_dicts(messages),
        tokenize=True,
        add_generation_prompt=opening,
        return_dict=False,
        sanitize_control_tokens=True,
    )
    return list(ids)


def _as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise PromptError(
            f"The tokenizer of {tokenizer.name_or_path or 'this model'} has no chat template, so it cannot be told "
            "who speaks. Choose an instruct or chat model, or put a chat_template.jinja beside its tokenizer."
        )
