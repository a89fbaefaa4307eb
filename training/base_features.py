"""What the frozen base makes of replies, as the features that a judge of people's taste is fitted on.

Several processes that hold the base divide the replies among themselves. It fits nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from memory.schema import Message
from training.base import BaseModel
from training.bradley_terry import Embed
from training.generation import reply_states, speaking_as
from training.pairs import encode_completion
from training.prompt import encode_prompt

Prompt = tuple[Message, ...]
_PROMPT_TOKENS = 64
"""How much of a prompt's end the judge's features see; whole histories would cost most of the time and tell little."""


def base_features(base: BaseModel, model: Any, *, each_step: Callable[[], None] = lambda: None) -> Embed:
    """What the frozen base sees in replies after the end of their prompts, for a judge.

    `model` is the base, or holds adapters over it.
    """
    longest = base.context_tokens - _PROMPT_TOKENS

    def embed(replies: Sequence[tuple[Prompt, str]]) -> Tensor:
        each_step()
        prompts = [encode_prompt(base.tokenizer, prompt)[-_PROMPT_TOKENS:] for prompt, _ in replies]
        said = [encode_completion(base.tokenizer, reply)[:longest] for _, reply in replies]
        rows = base.processes.mine(range(len(replies)))
        with speaking_as(model, None):
            mine = reply_states(
                model,
                [prompts[row] for row in rows],
                [said[row] for row in rows],
                pad=base.tokenizer.pad_token_id,
            )
        if base.processes.count == 1:
            return mine
        states = mine.new_zeros(len(replies), mine.shape[1])
        states[rows] = mine
        base.processes.add_up([states])
        return states

    return embed
