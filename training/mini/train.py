"""The training loop of the mini model: fresh dialogues every step, bf16 on the CPU, NF4 felt towards the end.

Everything that happens follows from a `Recipe` and its seed: the same recipe on the same machine and thread count
gives the same weights, bit for bit. Knows nothing of what the dialogues say.
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

from training.mini.dialogue import World, Writer
from training.mini.model import build_model, full_precision_state
from training.mini.nf4 import feel_quantization, forget_quantization
from training.mini.packing import Batch, Encoded, collate, pack
from training.mini.studying import answer_in_succession, recite
from training.mini.tokenizer import CONTEXT, PAD, encode_dialogues, learn_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

_log = logging.getLogger(__name__)
CHECKPOINT_EVERY = 100
"""Steps."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 0
    steps: int = 2800
    study: tuple[int, int] = (1300, 2200)
    """First and last step (excluded) whose dialogues are mostly dense in facts (`studying`)."""
    batch_tokens: int = 6912
    row_lengths: tuple[int, ...] = (256, 512)
    """Tokens per row: a dialogue goes into the first length that holds it (short rows are cheap to attend over)."""
    long_share: float = 0.06
    """Share of the last steps that use rows of the full context, with long dialogues."""
    quantized_share: float = 0.25
    """Share of the last steps in which linear weights are felt through NF4."""
    chunk: int = 4000
    """Dialogues written, encoded and packed at a time (a quarter of that where they are long)."""
    vocabulary: int = 3072
    tokenizer_dialogues: int = 40000
    hidden: int = 256
    layers: int = 5
    heads: int = 8
    feed_forward: int = 640
    learning_rate: float = 3e-3
    """Of AdamW, for embeddings and norms."""
    muon_learning_rate: float = 6e-3
    """Of Muon, for the matrices between them (update scaled to the size of AdamW's)."""
    warmup: int = 100
    decay_share: float = 0.35
    """Share of the last steps over which the learning rate falls to nothing (warmup, stable, decay)."""
    weight_decay: float = 0.05
    clip: float = 1.0
    threads: int = 1
    """Of torch; the weights depend on it in the last bits."""


PRESETS = {
    "tiny": Recipe(
        steps=40, study=(5, 10), batch_tokens=1024, row_lengths=(256,), chunk=200, vocabulary=512,
        tokenizer_dialogues=300, hidden=64, layers=2, heads=2, feed_forward=128, warmup=5, long_share=0.05,
    ),
    "quick": Recipe(steps=350, study=(100, 250)),
    "full": Recipe(),
}  # fmt: skip


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
    quantized_from = recipe.steps - round(recipe.steps * recipe.quantized_share)
    model.train()
    batches = islice(stream_batches(recipe, world, tokenizer), done, recipe.steps)
    for step, batch in enumerate(batches, start=done):
        if step == max(done, quantized_from):
            feel_quantization(model)
        loss = _take_step(model, optimizers, batch, recipe, schedule(recipe, step))
        progress = meter.read(loss, batch.input_ids.numel(), time.monotonic())
        if checkpoint and progress.step % CHECKPOINT_EVERY == 0:
            _store(checkpoint, model, optimizers, progress.step)
        if progress.step == recipe.steps:
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


def schedule(recipe: Recipe, step: int) -> float:
    """Share of the peak learning rate: linear warmup, a plateau, then a linear fall to a hundredth."""
    decay = max(1, round(recipe.steps * recipe.decay_share))
    rise = min(1.0, (step + 1) / recipe.warmup)
    fall = min(1.0, (recipe.steps - step) / decay)
    return min(rise, max(0.01, fall))


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


def stream_batches(recipe: Recipe, world: World, tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Batches without end, of dialogues that are never repeated on purpose; long ones in the last steps."""
    rng = random.Random(f"corpus {recipe.seed}")
    writer = Writer(world, rng)
    pad = tokenizer.convert_tokens_to_ids(PAD)
    long_from = recipe.steps - round(recipe.steps * recipe.long_share)
    step = 0
    while True:
        is_long = step >= long_from
        is_dense = recipe.study[0] <= step < recipe.study[1]
        count = recipe.chunk // 4 if is_long or is_dense else recipe.chunk
        turns = [rng.randint(6, 18) if is_long and rng.random() < 0.3 else None for _ in range(count)]
        dialogues = [writer.dialogue(number) for number in turns]
        if is_dense:
            dialogues += [answer_in_succession(writer, rng) for _ in range(count // 2)]
            dialogues += [recite(writer, rng) for _ in range(count // 2)]
        encoded = encode_dialogues(tokenizer, dialogues)
        lengths = (CONTEXT,) if is_long else recipe.row_lengths
        for length, rows in _batches(encoded, lengths, recipe.batch_tokens, rng):
            if not is_long and step >= long_from:
                break
            yield collate(rows, length, pad)
            step += 1


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
