"""How fast is the local engine? Tokens a second and waiting times for several chats at once, beside plain transformers.

    python -m benchmarks.serving [--chats 1,4,16,64] [--tokens 64] [--adapters 2] [--rounds 5] [--continuous] [--vllm]

Every chat asks a question of its own and gets exactly `--tokens` greedy tokens, so that all columns do equal work. They
take turns within each round, so that other work on the machine meets them alike; ratios are taken round by round.

- engine, N adapters: `studio.policy` with the chats spread over the base and N random LoRA adapters
- engine, base: the same without adapters
- (a) one request at a time through ``generate``, base; once more with bitsandbytes' own 4-bit layers
- (b) one static left-padded batch through ``generate``, base
- (c) transformers' continuous batching, base (``--continuous``)
- (d) a vLLM server on one core, base, over HTTP (``--vllm``; `make vllm-venv` installs it)

For one chat it also measures a blind pair: two replies to one question, sampled, against one reply. Prints tables and
one JSON line. It knows the engine's public parts only and changes no settings.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from benchmarks.generating import Taken
from benchmarks.machine import describe
from benchmarks.serving_columns import ALONE, STATIC, STORED, Measure, Served, adapted, columns
from memory.schema import Message
from training.base import BaseModel, load_base
from training.prompt import encode_prompt
from training.settings import TrainingSettings

QUESTIONS = (
    "How do I boil an egg?",
    "What is a good way to learn a language when I have little time?",
    "Thanks!",
    "Tell me a short story about a train.",
)


@dataclass(frozen=True)
class Measurement:
    """One column for one number of chats: medians over the rounds, and the least and most of the first.

    `first_*` are seconds to the first token, `per_token` seconds between two tokens of one reply; `to_alone` and
    `to_static` the tokens a second as multiples of those of (a) and (b) in the same round (with
    `--by-cpu` a CPU second).
    """

    how: str
    chats: int
    tokens_per_second: float
    least: float
    most: float
    tokens_per_cpu_second: float
    to_alone: float
    to_static: float
    per_token: float
    first_p50: float | None
    first_p95: float | None


def main() -> None:
    """Measure, print, exit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--chats", type=_numbers, default="1,4,16,64", help="numbers of chats, with commas")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per reply")
    parser.add_argument("--adapters", type=int, default=2, help="random LoRA adapters among the chats")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for every column")
    parser.add_argument("--continuous", action="store_true", help="measure (c) too")
    parser.add_argument("--vllm", action="store_true", help="measure (d) too")
    parser.add_argument(
        "--by-cpu", action="store_true", help="ratios of CPU time: for a busy machine, one thread"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = load_base(TrainingSettings())
    found: list[Measurement] = []
    with columns(base, options) as ways:
        for chats in options.chats:
            prompts = [prompt_of(base, index) for index in range(chats)]
            found += _measured(ways, prompts, rounds=options.rounds, by_cpu=options.by_cpu)
    pair = _pair(base, options)
    _print(found, pair, base, options)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def prompt_of(base: BaseModel, index: int) -> list[int]:
    """The ids of a question that no other chat asks."""
    return encode_prompt(base.tokenizer, [Message("user", f"{QUESTIONS[index % len(QUESTIONS)]} ({index})")])


def _measured(
    ways: dict[str, Measure], prompts: Sequence[list[int]], *, rounds: int, by_cpu: bool
) -> list[Measurement]:
    """Every column `rounds` times, taking turns; a first turn of each is thrown away."""
    if len(prompts) > 1:
        ways = {how: measure for how, measure in ways.items() if how != STORED}
    for measure in ways.values():
        measure(prompts)
    taken: dict[str, list[Taken]] = {how: [] for how in ways}
    for _ in range(rounds):
        for how, measure in ways.items():
            taken[how].append(measure(prompts))
    rates = {how: [one.tokens / one.seconds for one in each] for how, each in taken.items()}
    cpu_rates = {how: [one.tokens / one.cpu for one in each] for how, each in taken.items()}
    compared = cpu_rates if by_cpu else rates

    def ratio(how: str, to: str) -> float:
        return statistics.median(x / y for x, y in zip(compared[how], compared[to], strict=True))

    found = []
    for how, each in taken.items():
        at_once = 1 if how in (ALONE, STORED) else len(prompts)
        seconds = statistics.median(one.seconds for one in each)
        waits = [percentiles(one.firsts) for one in each if one.firsts]
        found.append(
            Measurement(
                how=how,
                chats=len(prompts),
                tokens_per_second=statistics.median(rates[how]),
                least=min(rates[how]),
                most=max(rates[how]),
                tokens_per_cpu_second=statistics.median(cpu_rates[how]),
                to_alone=ratio(how, ALONE),
                to_static=ratio(how, STATIC),
                per_token=seconds * at_once / each[0].tokens,
                first_p50=statistics.median(p50 for p50, _ in waits) if waits else None,
                first_p95=statistics.median(p95 for _, p95 in waits) if waits else None,
            )
        )
    return found


def _pair(base: BaseModel, options: argparse.Namespace) -> dict[str, float]:
    """Seconds for one reply, for two replies to one question, and for two replies under two adapters."""
    served = adapted(base, 2, threads=options.threads)
    same = Served(base, served._adapters, served._names[-1:], threads=options.threads)
    other = Served(base, served._adapters, served._names[-2:], threads=options.threads)
    prompt = prompt_of(base, 1)
    kinds = {"one": (same, [prompt]), "pair": (same, [prompt] * 2), "two_versions": (other, [prompt] * 2)}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds + 1):
        for kind, (each, prompts) in kinds.items():
            taken = each.answer(prompts, tokens=options.tokens, temperature=0.8)
            seconds[kind].append(taken.cpu if options.by_cpu else taken.seconds)
    return {kind: statistics.median(each[1:]) for kind, each in seconds.items()}


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[round(0.95 * (len(ordered) - 1))]


def _print(
    found: Sequence[Measurement], pair: dict[str, float], base: BaseModel, options: argparse.Namespace
) -> None:
    machine = describe() | {
        "model": base.name,
        "quantization": base.quantization,
        "device": str(base.device),
    }
    print(" ".join(f"{key}={value}" for key, value in machine.items()))
    print(
        "\n| chats | how | tokens/s (least-most) | a CPU second | x (a) | x (b) | first p50 | first p95 | a token |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for one in found:
        first = [f"{1000 * t:.0f} ms" if t is not None else "" for t in (one.first_p50, one.first_p95)]
        rate = f"{one.tokens_per_second:.0f} ({one.least:.0f}-{one.most:.0f})"
        ratios = f"{one.tokens_per_cpu_second:.0f} | {one.to_alone:.2f} | {one.to_static:.2f}"
        row = [one.chats, one.how, rate, ratios, *first, f"{1000 * one.per_token:.2f} ms"]
        print("| " + " | ".join(map(str, row)) + " |")
    one, two, versions = (1000 * pair[kind] for kind in ("one", "pair", "two_versions"))
    print(
        f"\nA blind pair: {two / one:.2f} times one reply ({one:.0f} ms); of two versions {versions / one:.2f} times."
    )
    rows = [asdict(measurement) for measurement in found]
    print(
        json.dumps(
            {"benchmark": "serving", **vars(options), **machine, "measurements": rows, "pair_seconds": pair}
        )
    )


if __name__ == "__main__":
    main()
