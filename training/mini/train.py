"""The training loop of the mini model: fresh dialogues every step, bf16 on the CPU, NF4 felt towards the end.

Everything that happens follows from a `Recipe` and its seed. Knows nothing of what the dialogues say.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.mini.dialogue import Message, World, Writer
from training.mini.model import build_model, full_precision_state
from training.mini.nf4 import feel_quantization, forget_quantization
from training.mini.packing import Batch, Encoded, collate, pack
from training.mini.recipe import Cycle, Recipe
from training.mini.studying import answer_in_succession, answer_some, recite, reckon
from training.mini.tokenizer import CONTEXT, PAD, encode_dialogues, learn_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

_log = logging.getLogger(__name__)
CHECKPOINT_EVERY = 100
"""Steps."""


@dataclass(frozen=True)
class Progress:
    """One line about a running training."""

    step: int
    steps: int
    loss: float
    """Weighted cross-entropy in nats, averaged over the last steps."""
    tokens: int
    seconds_left: float


def build_tokenizer(recipe: Recipe, world: World) -> PreTrainedTokenizerFast:
    writer = Writer(world, random.Random(f"tokenizer {recipe.seed}"))
    texts = (m.content for _ in range(recipe.tokenizer_dialogues) for m in writer.dialogue())
    return learn_tokenizer(texts, recipe.vocabulary)


def train(
    recipe: Recipe, world: World, tokenizer: PreTrainedTokenizerFast, *, checkpoint: Path | None = None
) -> Iterator[tuple[LlamaForCausalLM, Progress]]:
    """Train, yielding the model and the progress after every step; the last one yielded is the result.

    With `checkpoint`, the state is saved there every now and then, and training goes on from it where it exists: the
    dialogues of the steps already done are written again and skipped, so the weights are the same as without a
    pause. Sets torch's number of threads.
    """
    torch.set_num_threads(recipe.threads)
    model = build_model(recipe, tokenizer)
    optimizers = _build_optimizers(model, recipe)
    done = _restore(checkpoint, model, optimizers) if checkpoint and checkpoint.exists() else 0
    meter = _Meter(recipe.steps, done, begun=time.monotonic())
    model.train()
    for cycle in recipe.cycles:
        already = min(done, cycle.steps)
        done -= already
        if already == cycle.steps:
            continue
        quantized_from = cycle.steps - round(cycle.steps * recipe.quantized_share)
        batches = islice(stream_batches(recipe, cycle, world, tokenizer), already, cycle.steps)
        for step, batch in enumerate(batches, start=already):
            if step == max(already, quantized_from):
                feel_quantization(model)
            loss = _take_step(model, optimizers, batch, recipe, schedule(recipe, cycle, step))
            progress = meter.read(loss, batch.input_ids.numel(), time.monotonic())
            if checkpoint and progress.step % CHECKPOINT_EVERY == 0:
                _store(checkpoint, model, optimizers, progress.step)
            if step == cycle.steps - 1:
                forget_quantization(model)
            yield model, progress


class _Meter:
    """Turns single losses into progress."""

    def __init__(self, steps: int, done: int, *, begun: float) -> None:
        self.steps, self.done, self.first, self.begun = steps, done, done, begun
        self.loss, self.tokens = 0.0, 0

    def read(self, loss: float, tokens: int, now: float) -> Progress:
        self.done += 1
        self.tokens += tokens
        self.loss += (loss - self.loss) / min(self.done - self.first, 50)
        left = (now - self.begun) / (self.done - self.first) * (self.steps - self.done)
        return Progress(self.done, self.steps, self.loss, self.tokens, left)


Optimizers = list[tuple[torch.optim.Optimizer, float]]
"""Each optimizer with its peak learning rate."""


def _take_step(
    model: LlamaForCausalLM, optimizers: Optimizers, batch: Batch, recipe: Recipe, rate: float
) -> float:
    """One update at `rate` times the peak learning rates; the loss before it."""
    loss = weighted_loss(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    for optimizer, peak in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _store(checkpoint: Path, model: LlamaForCausalLM, optimizers: Optimizers, done: int) -> None:
    state = {
        "done": done,
        "model": full_precision_state(model),
        "optimizers": [optimizer.state_dict() for optimizer, _ in optimizers],
    }
    torch.save(state, checkpoint.with_suffix(".part"))
    checkpoint.with_suffix(".part").replace(checkpoint)


def _restore(checkpoint: Path, model: LlamaForCausalLM, optimizers: Optimizers) -> int:
    """Load a state written by `_store`; the number of steps that it has behind it."""
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    for (optimizer, _), saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["done"])


def schedule(recipe: Recipe, cycle: Cycle, step: int) -> float:
    """Share of the learning rates at a step of the cycle: linear warmup, a plateau, a linear fall to a hundredth."""
    decay = max(1, round(cycle.steps * recipe.decay_share))
    rise = min(1.0, (step + 1) / recipe.warmup)
    fall = min(1.0, (cycle.steps - step) / decay)
    return cycle.peak * min(rise, max(0.01, fall))


def weighted_loss(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Cross-entropy of the next token, averaged with the batch's weights (a scalar, in nats)."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(
            input_ids=batch.input_ids,
            position_ids=batch.positions,
            attention_mask=batch.attention,
            use_cache=False,
        ).logits
    weights = batch.weights[:, 1:].reshape(-1)
    kept = weights > 0
    predicted = logits[:, :-1].reshape(-1, logits.shape[-1])[kept].float()
    losses = torch.nn.functional.cross_entropy(
        predicted, batch.input_ids[:, 1:].reshape(-1)[kept], reduction="none"
    )
    return (losses * weights[kept]).sum() / weights[kept].sum()


def stream_batches(
    recipe: Recipe, cycle: Cycle, world: World, tokenizer: PreTrainedTokenizerFast
) -> Iterator[Batch]:
    """A cycle's batches, and more, of dialogues that are never repeated on purpose; long ones in its last steps."""
    rng = random.Random(f"corpus {recipe.seed}{cycle.stream}")
    writer = Writer(world, rng, mix=cycle.mix)
    pad = tokenizer.convert_tokens_to_ids(PAD)
    long_from = cycle.steps - round(cycle.steps * recipe.long_share)
    step = 0
    while True:
        is_long = step >= long_from
        is_dense = cycle.study[0] <= step < cycle.study[1]
        count = recipe.chunk // 4 if is_long or is_dense else recipe.chunk
        turns = [rng.randint(6, 18) if is_long and rng.random() < 0.3 else None for _ in range(count)]
        dialogues = [writer.dialogue(number) for number in turns]
        if is_dense:
            dialogues += _dense_dialogues(writer, rng, count // 2, reckoning=cycle.reckoning)
        encoded = encode_dialogues(tokenizer, dialogues)
        lengths = (CONTEXT,) if is_long else recipe.row_lengths
        for length, rows in _batches(encoded, lengths, recipe.batch_tokens, rng):
            if not is_long and step >= long_from:
                break
            yield collate(rows, length, pad)
            step += 1


def _dense_dialogues(
    writer: Writer, rng: random.Random, count: int, *, reckoning: bool
) -> list[list[Message]]:
    """`count` dialogues of questions and as many recitals; with `reckoning`, two thirds as many of sums."""
    question = answer_some if reckoning else answer_in_succession
    dialogues = [question(writer, rng) for _ in range(count)] + [recite(writer, rng) for _ in range(count)]
    return dialogues + [reckon(writer, rng) for _ in range(2 * count // 3 if reckoning else 0)]


def _batches(
    dialogues: list[Encoded], lengths: tuple[int, ...], tokens: int, rng: random.Random
) -> list[tuple[int, list[list[Encoded]]]]:
    """Rows of one length each, in batches of about `tokens` tokens, in random order."""
    batches, shorter = [], 0
    for length in lengths:
        rows = pack((d for d in dialogues if shorter < len(d[0]) <= length), length)
        rng.shuffle(rows)
        count = max(1, tokens // length)
        batches += [(length, rows[start : start + count]) for start in range(0, len(rows) - count + 1, count)]
        shorter = length
    rng.shuffle(batches)
    return batches


def _build_optimizers(model: LlamaForCausalLM, recipe: Recipe) -> Optimizers:
    """Muon (Jordan et al., 2024) for the matrices of the layers, AdamW for embeddings and norms, with peak rates."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.muon_learning_rate,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(
        others, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    return [(muon, recipe.muon_learning_rate), (adamw, recipe.learning_rate)]
