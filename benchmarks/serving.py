"""How fast is the local engine? Tokens a second and waiting times for several chats at once, beside plain transformers.

    python -m benchmarks.serving [--chats 1,4,16] [--tokens 64] [--adapters 2] [--continuous] [--threads 0]

Every chat asks a question of its own and gets exactly `--tokens` greedy tokens, so that all columns do equal work:

- engine: `studio.policy.engine` with the chats spread over the base and `--adapters` random LoRA adapters
- engine, base: the same without adapters
- (a) one request at a time through ``generate``, base
- (b) one static left-padded batch through ``generate``, base
- (c) transformers' continuous batching, base (``--continuous``; it needs minutes on a CPU)

Prints a table and one JSON line. It knows the engine's public parts only and changes no settings.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from memory.schema import Message
from studio.policy.adapters import Adapters, read_adapter
from studio.policy.batch import Row
from studio.policy.engine import Engine, Limits
from studio.policy.sampling import Drawing
from studio.policy.text import ReplyText
from training.base import BaseModel, load_base
from training.prompt import encode_prompt
from training.settings import TrainingSettings

_QUESTIONS = (
    "How do I boil an egg?",
    "What is a good way to learn a language when I have little time?",
    "Thanks!",
    "Tell me a short story about a train.",
)


@dataclass(frozen=True)
class Measurement:
    """One column for one number of chats. Times in seconds; `first_*` is the time to the first token.

    Tokens per CPU second count the process's own time over all threads: on a machine that is busy with other work they
    still compare, while everything else does not.
    """

    how: str
    chats: int
    tokens_per_second: float
    tokens_per_cpu_second: float
    first_p50: float
    first_p95: float
    per_token: float


class _Timer:
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


def main() -> None:
    """Measure, print, exit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--chats", default="1,4,16", help="numbers of chats, with commas")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per reply")
    parser.add_argument("--adapters", type=int, default=2, help="random LoRA adapters among the chats")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; the median counts")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    parser.add_argument("--continuous", action="store_true", help="measure (c) too")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    base = load_base(TrainingSettings())
    counts = [int(count) for count in options.chats.split(",")]
    columns = _columns(base, options)
    found = []
    for chats in counts:
        prompts = [_prompt(base, index) for index in range(chats)]
        for how, measure in columns:
            rounds = [measure(prompts) for _ in range(options.rounds)]
            found.append(_median(how, chats, rounds))
    _print(found, base, options)


def _columns(
    base: BaseModel, options: argparse.Namespace
) -> list[tuple[str, Callable[[Sequence[list[int]]], Measurement]]]:
    """The columns in an order that leaves the plain model plain until the adapters go in."""
    tokens = options.tokens
    columns: list[tuple[str, Callable[[Sequence[list[int]]], Measurement]]] = [
        ("(a) one at a time", lambda prompts: _generate(base, prompts, tokens=tokens, together=False)),
        ("(b) static batch", lambda prompts: _generate(base, prompts, tokens=tokens, together=True)),
    ]
    if options.continuous:
        columns.append(("(c) continuous", lambda prompts: _continuous(base, prompts, tokens=tokens)))
    plain = Adapters(base.model)
    columns.append(
        ("engine, base", lambda prompts: _engine(base, plain, [None], prompts, tokens, options.threads))
    )
    adapted = _adapted(options.adapters)
    columns.append(("engine", lambda prompts: _engine(*adapted, prompts, tokens, options.threads)))
    return columns


def _adapted(count: int) -> tuple[BaseModel, Adapters, list[str | None]]:
    """A second copy of the base with `count` random adapters of rank 16."""
    from copy import deepcopy

    from peft import LoraConfig, get_peft_model

    base = load_base(TrainingSettings())
    adapters = Adapters(base.model)
    names: list[str | None] = [None]
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
    names += [adapters.put_in(each) for each in weights]
    return base, adapters, names


def _prompt(base: BaseModel, index: int) -> list[int]:
    text = f"{_QUESTIONS[index % len(_QUESTIONS)]} ({index})"
    return encode_prompt(base.tokenizer, [Message("user", text)])


def _engine(
    base: BaseModel,
    adapters: Adapters,
    names: Sequence[str | None],
    prompts: Sequence[list[int]],
    tokens: int,
    threads: int,
) -> Measurement:
    model: Any = base.model
    limits = Limits(rows=len(prompts), waiting=len(prompts))
    layers = model.config.get_text_config().num_hidden_layers
    engine = Engine(adapters, layer_count=layers, device=base.device, limits=limits, threads=threads)
    sinks = [_Timer(base.tokenizer, tokens=tokens) for _ in prompts]
    begin, cpu = time.perf_counter(), time.process_time()
    for index, (prompt, sink) in enumerate(zip(prompts, sinks, strict=True)):
        drawing = Drawing.seeded(0.0, 1.0, seed=index)
        engine.submit(Row(prompt, names[index % len(names)], drawing, tokens, sink))
    for sink in sinks:
        sink.over.wait()
    cpu = time.process_time() - cpu
    engine.close()
    if failed := [sink.error for sink in sinks if sink.error]:
        raise RuntimeError(f"{len(failed)} replies failed: {failed[0]}")
    firsts = sorted(sink.times[0] - begin for sink in sinks)
    seconds = max(sink.times[-1] for sink in sinks) - begin
    steps = [(sink.times[-1] - sink.times[0]) / max(1, tokens - 1) for sink in sinks]
    total = len(prompts) * tokens
    return Measurement(
        "", len(prompts), total / seconds, total / cpu, *_percentiles(firsts), statistics.median(steps)
    )


def _generate(base: BaseModel, prompts: Sequence[list[int]], *, tokens: int, together: bool) -> Measurement:
    """``generate`` for all prompts as one batch, or for each after the other (at most four of them are timed)."""
    model: Any = base.model
    batches = [list(prompts)] if together else [[prompt] for prompt in prompts[:4]]
    begin, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        width = max(map(len, batch))
        pad = [[0] * (width - len(prompt)) for prompt in batch]
        ids = torch.tensor([p + prompt for p, prompt in zip(pad, batch, strict=True)], device=base.device)
        mask = torch.tensor([[0] * len(p) + [1] * (width - len(p)) for p in pad], device=base.device)
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    count = sum(map(len, batches)) * tokens
    return Measurement(
        "", len(prompts), count / seconds, count / cpu, *[float("nan")] * 2, seconds / (len(batches) * tokens)
    )


def _continuous(base: BaseModel, prompts: Sequence[list[int]], *, tokens: int) -> Measurement:
    from transformers import GenerationConfig

    model: Any = base.model
    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    begin, cpu = time.perf_counter(), time.process_time()
    answers = model.generate_batch(inputs=list(prompts), generation_config=config)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    count = sum(len(answer.generated_tokens) for answer in answers.values())
    return Measurement("", len(prompts), count / seconds, count / cpu, *[float("nan")] * 2, seconds / tokens)


def _percentiles(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]


def _median(how: str, chats: int, rounds: Sequence[Measurement]) -> Measurement:
    middle = sorted(rounds, key=lambda one: one.tokens_per_second)[len(rounds) // 2]
    return Measurement(**{**asdict(middle), "how": how, "chats": chats})


def _print(found: Sequence[Measurement], base: BaseModel, options: argparse.Namespace) -> None:
    print(f"{base.name}, {base.quantization}, {base.device}, {torch.get_num_threads()} threads")
    line = "{:>5}  {:<18} {:>9} {:>9} {:>10} {:>10} {:>10}"
    print(line.format("chats", "how", "tokens/s", "per CPU s", "first p50", "first p95", "per token"))
    for one in found:
        first = [f"{1000 * t:.0f} ms" if t == t else "" for t in (one.first_p50, one.first_p95)]
        rates = [f"{rate:.0f}" for rate in (one.tokens_per_second, one.tokens_per_cpu_second)]
        print(line.format(one.chats, one.how, *rates, *first, f"{1000 * one.per_token:.2f} ms"))
    rows = [{key: None if value != value else value for key, value in asdict(one).items()} for one in found]
    machine = {"model": base.name, "quantization": base.quantization, "device": str(base.device)}
    machine |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "system": platform.platform()}
    print(json.dumps({"benchmark": "serving", "tokens": options.tokens, **machine, "measurements": rows}))


if __name__ == "__main__":
    main()
