"""A base of its own for `benchmarks.human`: what does it take to read people's judgements, size or the right texts?

    python -m benchmarks.human_base --data FOLDER --output FOLDER [--set accentor] [--cpu-seconds 300]

Learns a tokenizer on the texts of the sets' training parts (pairs and thumbs, judged well or badly) and trains a small
Llama from scratch to continue them, for so many seconds of processor time. The folder can be given as ``--model`` to
the benchmark and to nothing else of worth: such a base has read a few thousand short conversations. No dialogue or
prompt of a test part is among the texts, and no judgement is looked at.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.human_data import SETS, UnreadableData, read_set
from training.mini.dialogue import Message
from training.mini.packing import Batch, Encoded, collate, pack
from training.mini.recipe import Recipe

if TYPE_CHECKING:
    import torch

ROW, ROWS = 384, 10
"""Tokens in a row, and rows in a batch."""
SHAPE = replace(Recipe(), vocabulary=4096, hidden=192, layers=3, heads=6, feed_forward=512)
_WARMUP, _FALL = 0.03, 0.5
"""Shares of the time over which the learning rates rise and fall."""


@dataclass(frozen=True)
class Trained:
    """What came of it: parameters, tokens read, passes over the texts, and the mean loss of the last tenth in nats."""

    parameters: int
    texts: int
    tokens: int
    passes: float
    loss: float
    cpu_seconds: float


def texts_of(folder: Path, sets: Sequence[str]) -> list[list[Message]]:
    """The conversations of the sets' training parts, one for each prompt, with one of the replies that it was given."""
    found: dict[tuple[str, ...], list[Message]] = {}
    for name in sets:
        data = read_set(folder, name)
        for ordering in (*data.train, *data.thumbs):
            asked = [Message(message.role, message.content) for message in ordering.prompt]
            key = tuple(message.content for message in asked)
            found.setdefault(key, [*asked, Message("assistant", ordering.replies[0])])
    return list(found.values())


def make_base(conversations: Sequence[Sequence[Message]], output: Path, *, cpu_seconds: float) -> Trained:
    """Learn a tokenizer, train a model, and write both into `output`."""
    from training.mini.model import build_model, save
    from training.mini.tokenizer import PAD, encode_dialogues, learn_tokenizer

    messages = {message.content: None for conversation in conversations for message in conversation}
    tokenizer = learn_tokenizer(messages, SHAPE.vocabulary)
    encoded = [
        (ids, [True] * len(ids)) for ids, _ in encode_dialogues(tokenizer, conversations) if len(ids) <= ROW
    ]
    model = build_model(SHAPE, tokenizer)
    optimizers = _optimizers(model)
    begun, tokens, losses = time.process_time(), 0, []
    for batch in _batches(encoded, pad=tokenizer.convert_tokens_to_ids(PAD)):
        share = (time.process_time() - begun) / cpu_seconds
        if share >= 1:
            break
        losses.append(_step(model, optimizers, batch, rate=min(1, share / _WARMUP, (1 - share) / _FALL)))
        tokens += int((batch.weights > 0).sum())
    save(model, tokenizer, output)
    whole = sum(len(ids) for ids, _ in encoded)
    latest = losses[-max(1, len(losses) // 10) :]
    return Trained(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        texts=len(encoded),
        tokens=tokens,
        passes=tokens / whole,
        loss=sum(latest) / len(latest),
        cpu_seconds=time.process_time() - begun,
    )


def _batches(encoded: Sequence[Encoded], *, pad: int) -> Iterator[Batch]:
    """Batches without end, every pass packed and ordered anew."""
    rng = random.Random(0)
    while True:
        rows = pack(rng.sample(encoded, len(encoded)), ROW)
        rng.shuffle(rows)
        for start in range(0, len(rows) - ROWS + 1, ROWS):
            yield collate(rows[start : start + ROWS], ROW, pad)


def _optimizers(model: torch.nn.Module) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the layers, AdamW for the rest, as the shipped model was trained."""
    import torch

    matrices = [value for name, value in model.named_parameters() if value.ndim == 2 and "embed" not in name]
    others = [value for name, value in model.named_parameters() if value.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=SHAPE.muon_learning_rate, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, lr=SHAPE.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, SHAPE.muon_learning_rate), (adamw, SHAPE.learning_rate)]


def _step(
    model: torch.nn.Module,
    optimizers: Sequence[tuple[torch.optim.Optimizer, float]],
    batch: Batch,
    *,
    rate: float,
) -> float:
    """One update at `rate` times the peak learning rates; the loss before it."""
    import torch

    from training.mini.train import weighted_loss

    loss = weighted_loss(model, batch)  # type: ignore[arg-type]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), SHAPE.clip)
    for optimizer, peak in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m benchmarks.human_base", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets' files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the base")
    parser.add_argument(
        "--set", action="append", choices=SETS, help="whose texts; may be repeated (accentor)"
    )
    parser.add_argument("--cpu-seconds", type=float, default=300.0, help="processor time to train for")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        conversations = texts_of(chosen.data, chosen.set or ["accentor"])
    except UnreadableData as error:
        print(error, file=sys.stderr)
        return 1
    trained = make_base(conversations, chosen.output, cpu_seconds=chosen.cpu_seconds)
    print(json.dumps(trained.__dict__))
    return 0


if __name__ == "__main__":
    sys.exit(main())
