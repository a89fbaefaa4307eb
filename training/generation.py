"""Replies in bulk, and what a model thinks of replies: batched sampling, log-probabilities, KL divergence.

Works on token ids under one adapter at a time, for the evaluation, where nobody is waiting for a stream. It
knows no chat template, no ledger and no preference; the chat has an engine of its own. Rows are left-padded
to sample and right-padded to score, and grouped so that no batch of logits outgrows `_LOGITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.drawing import Decoding as Decoding
from training.drawing import draw
from training.out_of_memory import MicroBatch
from training.processes import ALONE, Processes

Ids = Sequence[int]
_OPENING = 8
"""Tokens that make the opening of a reply."""
_SURE = 0.9
"""Probability from which on a version counts as sure of a token."""
_LOGITS = 1 << 26
"""Most logits held at once while scoring: 256 MB in float32."""


@dataclass(frozen=True)
class SampledReply:
    """A reply's token ids, and the log-probability of each at the moment it was drawn.

    `drawn` are those of the distribution that was sampled from, after temperature and nucleus: without a nucleus
    (``top_p`` 1) they are the tempered policy's. `plain` are the policy's own, at temperature 1.
    """

    ids: list[int]
    drawn: list[float]
    plain: list[float]


@contextmanager
def speaking_as(model: Any, adapter: str | None) -> Iterator[None]:
    """Let `model` answer under `adapter` (None: the base alone), in evaluation mode and without gradients."""
    model.eval()
    with torch.no_grad():
        if adapter is not None:
            model.set_adapter(adapter, inference_mode=True)
            yield
        elif hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                yield
        else:
            yield


def sample(
    model: Any,
    prompts: Sequence[Ids],
    *,
    decoding: Decoding,
    rows: int = 64,
    each_step: Callable[[], None] = lambda: None,
    processes: Processes = ALONE,
) -> list[list[int]]:
    """One reply to each prompt, as token ids that end with the end of the turn unless the limit cut them off.

    The same seed, model and prompts give the same replies, in whatever batches and on however many `processes`: every
    token of every reply has a random number of its own. `each_step` is called once a token; what it raises ends the
    sampling.
    """
    sampled = sample_with_logprobs(
        model, prompts, decoding=decoding, rows=rows, each_step=each_step, processes=processes
    )
    return [reply.ids for reply in sampled]


def sample_with_logprobs(
    model: Any,
    prompts: Sequence[Ids],
    *,
    decoding: Decoding,
    rows: int = 64,
    each_step: Callable[[], None] = lambda: None,
    processes: Processes = ALONE,
) -> list[SampledReply]:
    """The replies of `sample`, with the log-probabilities that their tokens had."""
    # On the CPU, whatever the device: the same numbers everywhere.
    generator = torch.Generator().manual_seed(decoding.seed)
    chances = torch.rand(len(prompts), decoding.max_new_tokens, generator=generator).to(model.device)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    mine = processes.mine(order)
    replies = {row: SampledReply([], [], []) for row in mine}

    def answer(chosen: list[int]) -> None:
        batch = _sample_batch(model, [prompts[row] for row in chosen], decoding, chances[chosen], each_step)
        replies.update(zip(chosen, batch, strict=True))

    MicroBatch(rows).over(mine, answer)
    gathered = processes.gathered([replies[row] for row in mine])
    whole = dict(zip(order, gathered, strict=True))
    return [whole[row] for row in range(len(prompts))]


def token_logprobs(model: Any, prompts: Sequence[Ids], replies: Sequence[Ids], *, pad: int) -> list[Tensor]:
    """Log-probability of every token of each reply given its prompt: float32 [len(reply)] a row."""
    scores: list[Tensor] = [torch.empty(0)] * len(prompts)
    for batch in _batches(model, prompts, replies):
        for row, logits in _reply_logits(model, prompts, replies, batch, pad=pad):
            taken = torch.tensor(list(replies[row]), device=logits.device)
            scores[row] = logits.log_softmax(-1).gather(-1, taken[:, None]).squeeze(-1).cpu()
    return scores


def kl_per_reply(
    model: Any, prompts: Sequence[Ids], replies: Sequence[Ids], *, of: str | None, to: str | None, pad: int
) -> list[float]:
    """KL(of || to) in nats along each reply: the exact divergence over the vocabulary, summed over its
    tokens.

    With replies sampled from `of` this estimates the divergence of whole replies with less variance than
    their log-ratio, and is never negative (the Rao-Blackwellised estimator: Amini et al. 2025, "Better
    Estimation of the KL Divergence Between Language Models").
    """
    divergences = [0.0] * len(prompts)
    for batch in _batches(model, prompts, replies):
        with speaking_as(model, of):
            first = [
                logits.log_softmax(-1) for _, logits in _reply_logits(model, prompts, replies, batch, pad=pad)
            ]
        with speaking_as(model, to):
            second = [
                logits.log_softmax(-1) for _, logits in _reply_logits(model, prompts, replies, batch, pad=pad)
            ]
        for row, log_p, log_q in zip(batch, first, second, strict=True):
            divergences[row] = float((log_p.exp() * (log_p - log_q)).sum())
    return divergences


def forgotten_share(
    model: Any, prompts: Sequence[Ids], replies: Sequence[Ids], *, of: str | None, to: str | None, pad: int
) -> float | None:
    """Share of the tokens that `of` is sure of along `replies` and to which `to` would no longer give the first rank.

    Where a version is sure, there is little of manner and much of knowledge and spelling; so a change of manner leaves
    this near nothing and forgetting does not. `replies` should be those of `of`. None without a token.
    """
    if not any(replies):
        return None
    sure_tokens = lost_tokens = 0
    for batch in _batches(model, prompts, replies):
        with speaking_as(model, of):
            first = [
                logits.softmax(-1).max(-1)
                for _, logits in _reply_logits(model, prompts, replies, batch, pad=pad)
            ]
        with speaking_as(model, to):
            second = [
                logits.argmax(-1) for _, logits in _reply_logits(model, prompts, replies, batch, pad=pad)
            ]
        for before, after in zip(first, second, strict=True):
            sure = before.values > _SURE
            sure_tokens += int(sure.sum())
            lost_tokens += int((after != before.indices)[sure].sum())
    return lost_tokens / max(sure_tokens, 1)


def reply_states(model: Any, prompts: Sequence[Ids], replies: Sequence[Ids], *, pad: int) -> Tensor:
    """What `model` sees in each reply [rows, 3 * hidden]: the mean over its tokens of a lower layer and of the last
    one, and the mean of the lower layer over its opening.
    """
    states = torch.zeros(len(prompts), 3 * model.config.hidden_size)
    for batch in _batches(model, prompts, replies):
        lines, ids, mask = _right_padded(model, prompts, replies, batch, pad=pad)
        layers = model(
            input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True, logits_to_keep=1
        ).hidden_states
        lower, last = layers[len(layers) // 4], layers[-1]
        for index, (row, line) in enumerate(zip(batch, lines, strict=True)):
            reply = slice(len(prompts[row]), len(line))
            below = lower[index, reply].float()
            seen = (below.mean(dim=0), last[index, reply].float().mean(dim=0), below[:_OPENING].mean(dim=0))
            states[row] = torch.cat(seen).cpu()
    return states


def _sample_batch(
    model: Any,
    prompts: Sequence[Ids],
    decoding: Decoding,
    chances: Tensor,
    each_step: Callable[[], None],
) -> list[SampledReply]:
    """One reply to each prompt; `chances` [rows, max_new_tokens] holds the uniform number of each token."""
    from transformers import DynamicCache

    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[decoding.pad] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache, running = DynamicCache(), list(range(len(prompts)))
    replies = [SampledReply([], [], []) for _ in prompts]
    for step in range(decoding.max_new_tokens):
        each_step()
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        logits = logits.float()
        tokens, drawn = draw(logits, decoding, chances[running, step])
        plain = logits.log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
        taken = zip(running, tokens.tolist(), drawn.tolist(), plain.tolist(), strict=True)
        for row, token, drawn_with, plain_with in taken:
            replies[row].ids.append(token)
            replies[row].drawn.append(drawn_with)
            replies[row].plain.append(plain_with)
        going = [index for index, row in enumerate(running) if replies[row].ids[-1] not in decoding.ends]
        if not going:
            break
        if len(going) < len(running):
            kept = torch.tensor(going, device=model.device)
            cache.batch_select_indices(kept)
            tokens, mask, positions = tokens[kept], mask[kept], positions[kept]
            running = [running[index] for index in going]
        ids, positions = tokens[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=-1)
    return replies


def _batches(model: Any, prompts: Sequence[Ids], replies: Sequence[Ids]) -> Iterator[list[int]]:
    """Rows in groups of like length whose logits fit `_LOGITS`; rows with an empty reply are left out."""
    rows = [row for row in range(len(prompts)) if replies[row]]
    rows.sort(key=lambda row: len(prompts[row]) + len(replies[row]))
    batch: list[int] = []
    for row in rows:
        width = len(prompts[row]) + len(replies[row])
        if batch and (len(batch) + 1) * width * model.config.vocab_size > _LOGITS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _reply_logits(
    model: Any, prompts: Sequence[Ids], replies: Sequence[Ids], batch: Sequence[int], *, pad: int
) -> list[tuple[int, Tensor]]:
    """(row, float32 logits [len(reply), vocabulary]) that predict each token of the reply."""
    lines, ids, mask = _right_padded(model, prompts, replies, batch, pad=pad)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return [
        (row, logits[index, len(prompts[row]) - 1 : len(line) - 1].float())
        for index, (row, line) in enumerate(zip(batch, lines, strict=True))
    ]


def _right_padded(
    model: Any, prompts: Sequence[Ids], replies: Sequence[Ids], batch: Sequence[int], *, pad: int
) -> tuple[list[list[int]], Tensor, Tensor]:
    """The lines (prompt and reply) of a batch, and their ids and attention mask [rows, longest line]."""
    lines = [[*prompts[row], *replies[row]] for row in batch]
    width = max(len(line) for line in lines)
    ids = torch.tensor([line + [pad] * (width - len(line)) for line in lines], device=model.device)
    mask = torch.tensor([[1] * len(line) + [0] * (width - len(line)) for line in lines], device=model.device)
    return lines, ids, mask
