"""Prompts and their replies as one batch of lines, and what a model makes of every reply token, gradients included.

Rows are padded on the right, so that causal attention alone keeps every token from seeing the padding, and no mask is
needed, which would rule out the quickest kernels. What comes back begins with each reply's first token: [rows, longest
reply], with a mask. `training.generation` scores replies for an examination, without gradients; this is for training on
them. It knows no adapters: the caller says which one speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Ids = Sequence[int]


@dataclass(frozen=True)
class Lines:
    """`ids` [rows, longest line]; `actions` (the reply's tokens) and `mask` [rows, longest reply].

    `before` [rows, longest reply] is the place in the line before each action, where the model decides on it; `last`
    [rows] the place of a line's last token.
    """

    ids: Tensor
    actions: Tensor
    mask: Tensor
    before: Tensor
    last: Tensor


def lines_of(prompts: Sequence[Ids], replies: Sequence[Ids], *, pad: int, device: torch.device) -> Lines:
    """Lay prompts and their replies (none empty) out as a batch."""
    lines = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    starts = torch.tensor([len(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(reply) for reply in replies], device=device)
    steps = torch.arange(max(len(reply) for reply in replies), device=device)
    mask = steps < lengths[:, None]
    return Lines(
        ids=_padded(lines, pad=pad, device=device),
        actions=_padded([list(reply) for reply in replies], pad=pad, device=device),
        mask=mask,
        before=torch.where(mask, starts[:, None] - 1 + steps, 0),
        last=starts + lengths - 1,
    )


def action_logits(model: Any, lines: Lines, *, temperature: float = 1.0) -> Tensor:
    """float32 logits [rows, longest reply, vocabulary] of the distribution from which each action was drawn.

    `model` is a `peft.PeftModel`. Its output layer, which is much of a small model's work, sees the states that decide
    on an action and no others.
    """
    output_layer = model.get_base_model().get_output_embeddings()

    def only_actions(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (at_places(given[0], lines.before), *given[1:])

    with output_layer.register_forward_pre_hook(only_actions):
        found: Tensor = model(input_ids=lines.ids, use_cache=False).logits.float()
    return found if temperature == 1 else found / temperature


def action_logprobs(logits: Tensor, lines: Lines) -> Tensor:
    """Log-probability [rows, longest reply] of every action; 0 where there is none."""
    return of_actions(logits.log_softmax(-1), lines)


def of_actions(logprobs: Tensor, lines: Lines) -> Tensor:
    """The same from the log-probabilities [rows, longest reply, vocabulary] of the whole vocabulary."""
    return torch.where(lines.mask, logprobs.gather(-1, lines.actions[..., None]).squeeze(-1), 0.0)


def hidden_states(model: Any, lines: Lines) -> Tensor:
    """What the model's last layer, after its norm, holds at every place of the line: float32 [rows, width, hidden].

    `model` is a `peft.PeftModel`; the output layer, which is most of a small model's work, is not run.
    """
    backbone = model.get_base_model().base_model
    states = backbone(input_ids=lines.ids, use_cache=False).last_hidden_state
    found: Tensor = states.float()
    return found


def at_places(states: Tensor, places: Tensor) -> Tensor:
    """The states [rows, ..., hidden] at `places` [rows, ...] of the lines."""
    rows = torch.arange(len(states), device=states.device).reshape(-1, *[1] * (places.ndim - 1))
    return states[rows, places]


def _padded(rows: Sequence[Sequence[int]], *, pad: int, device: torch.device) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
