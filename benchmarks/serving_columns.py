"""The columns of `benchmarks.serving`: the same requests answered by the engine, by transformers and by vLLM.

Every column is a function from prompts to what was taken, and has a model of its own. It measures one round of one
column; how often and in which order is the benchmark's.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from benchmarks.generating import Taken, continuous, one_at_a_time, quantized_as_stored, static_batch
from benchmarks.vllm_column import vllm_column
from studio.policy.adapters import Adapters, read_adapter
from studio.policy.admission import Limits
from studio.policy.batch import Row
from studio.policy.engine import Engine
from studio.policy.sampling import Drawing
from studio.policy.text import ReplyText
from training.base import BaseModel

ALONE, STATIC, STORED = "(a) one at a time", "(b) static batch", "(a) with 4-bit layers"
Measure = Callable[[Sequence[list[int]]], Taken]


@contextmanager
def columns(base: BaseModel, options: argparse.Namespace) -> Iterator[dict[str, Measure]]:
    """Name and measurement of every column, each with a model of its own."""
    tokens, threads = options.tokens, options.threads
    stored: Any = quantized_as_stored(base) if base.quantization == "nf4" else None
    plain: Any = deepcopy(base.model)
    found: dict[str, Measure] = {
        ALONE: lambda prompts: one_at_a_time(base.model, prompts, tokens=tokens),
        STATIC: lambda prompts: static_batch(base.model, prompts, tokens=tokens),
    }
    if stored is not None:
        found[STORED] = lambda prompts: one_at_a_time(stored, prompts, tokens=tokens)
    if options.continuous:
        paged = deepcopy(base.model)
        found["(c) continuous"] = lambda prompts: continuous(paged, prompts, tokens=tokens)
    engine = Served(base, Adapters(plain), [None], threads=threads)
    found["engine, base"] = lambda prompts: engine.answer(prompts, tokens=tokens)
    many = adapted(base, options.adapters, threads=threads)
    found[f"engine, {options.adapters} adapters"] = lambda prompts: many.answer(prompts, tokens=tokens)
    with ExitStack() as stack:
        if options.vllm:
            answer = stack.enter_context(vllm_column(rows=max(options.chats)))
            found["(d) vLLM"] = lambda prompts: answer(prompts, tokens=tokens)
        yield found


class Timer:
    """A sink that notes when tokens come, and turns them into text as the studio does."""

    def __init__(self, tokenizer: Any, *, tokens: int) -> None:
        self._text = ReplyText(tokenizer)
        self._tokens = tokens
        self.times: list[float] = []
        self.over = threading.Event()
        self.error: str | None = None
        self.cancelled = False

    def take(self, token: int) -> bool:
        self._text.push(token)
        self.times.append(time.perf_counter())
        return len(self.times) >= self._tokens

    def move_up(self, waiting: int) -> None:
        """Places in line are not measured."""

    def end(self, *, error: str | None = None) -> None:
        self.error = error
        self.over.set()


class Served:
    """An engine on `adapters`, whose rows take turns under `names`."""

    def __init__(
        self, base: BaseModel, adapters: Adapters, names: Sequence[str | None], *, threads: int
    ) -> None:
        self._base = base
        self._adapters = adapters
        self._names = list(names)
        self._threads = threads

    def answer(self, prompts: Sequence[list[int]], *, tokens: int, temperature: float = 0.0) -> Taken:
        """All of `prompts` handed in at once. Raises `RuntimeError` when a reply fails."""
        model: Any = self._base.model
        limits = Limits(rows=len(prompts), waiting=len(prompts), slots=len(prompts) * 4096)
        layers = model.config.get_text_config().num_hidden_layers
        engine = Engine(
            self._adapters,
            layer_count=layers,
            device=self._base.device,
            limits=limits,
            threads=self._threads,
        )
        sinks = [Timer(self._base.tokenizer, tokens=tokens) for _ in prompts]
        begun, cpu = time.perf_counter(), time.process_time()
        # Names are dealt from the end, so that a lone chat has an adapter and its cost is seen.
        for index, (prompt, sink) in enumerate(zip(prompts, sinks, strict=True)):
            drawing = Drawing.seeded(temperature, 0.95, seed=index)
            name = self._names[-1 - index % len(self._names)]
            engine.submit(Row(prompt, name, drawing, tokens, sink))
        for sink in sinks:
            sink.over.wait()
        cpu = time.process_time() - cpu
        engine.close()
        if failed := [sink.error for sink in sinks if sink.error]:
            raise RuntimeError(f"{len(failed)} replies failed: {failed[0]}")
        seconds = max(sink.times[-1] for sink in sinks) - begun
        return Taken(len(prompts) * tokens, seconds, cpu, tuple(sink.times[0] - begun for sink in sinks))


def adapted(base: BaseModel, count: int, *, threads: int) -> Served:
    """A copy of the base with `count` random adapters of rank 16 beside it."""
    from peft import LoraConfig, get_peft_model

    weights = []
    for seed in range(count):
        torch.manual_seed(seed)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        trained = get_peft_model(deepcopy(base.model), config)
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.01)
        with tempfile.TemporaryDirectory() as folder:
            trained.save_pretrained(folder)
            weights.append(read_adapter(Path(folder), device=base.device))
    adapters = Adapters(deepcopy(base.model))
    return Served(base, adapters, [None, *(adapters.put_in(each) for each in weights)], threads=threads)
