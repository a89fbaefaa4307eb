"""Does anybody notice a swap? Chats stream without pause while adapters are promoted one after another.

    python -m benchmarks.swap [--chats 16] [--swaps 10] [--tokens 64] [--threads 1] [--arms engine,reload,drain]

- engine: the studio's own way, `studio.serving` on `studio.policy`: load, prove, route, let the old one run out
- reload: the model is taken down and loaded again with the new adapter; replies under way fail, and are asked for again
- drain: a reader-writer lock; new replies wait until those under way have ended and the new adapter is in

All greedy, so every reply can be compared with what its adapter says alone. A reply is *mixed* when it differs from
that anywhere but at a near-tie. A *gap* lies between two pieces of one reply, a *wait* between asking and the first
piece; both are taken by the readers, one thread for each chat, from the first promotion on. The new adapter *answers*
when a reply under it shows its first piece, counted from the moment its STABLE file is there. Prints a table and one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe
from benchmarks.serving import QUESTIONS
from benchmarks.shelf import Prepared, prepare, publish
from benchmarks.swap_ways import Arm, open_arm
from memory.schema import BASE_VERSION, Message
from studio.policy.interface import Sampling
from studio.policy.local import LocalPolicy
from training.base import BaseModel, load_base
from training.prompt import encode_prompt, encode_text
from training.registry import Registry
from training.settings import TrainingSettings

NEAR_TIE = 1e-3
"""Two best logits this close may change places by rounding alone."""


@dataclass
class Reply:
    """What one chat saw of one reply. Times are of `time.perf_counter`."""

    question: str
    version: str
    asked: float
    times: list[float] = field(default_factory=list)
    text: str = ""
    finish: str | None = None


@dataclass(frozen=True)
class Outcome:
    """One arm. Times in milliseconds, `answers_*` in seconds; `across` are replies that were under way at a swap."""

    arm: str
    replies: int
    across: int
    failed: int
    mixed: int
    near_ties: int
    gap_median: float
    gap_longest: float
    wait_median: float
    wait_longest: float
    answers_median: float
    answers_longest: float


def main() -> None:
    """Measure, print, exit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--chats", type=int, default=16, help="chats that stream without pause")
    parser.add_argument("--swaps", type=int, default=10, help="adapters promoted one after another")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens per reply")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for the model")
    parser.add_argument("--arms", default="engine,reload,drain", help="which ways to measure, with commas")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = load_base(TrainingSettings())
    sampling = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=options.tokens)
    questions = [f"{QUESTIONS[n % len(QUESTIONS)]} ({n})" for n in range(min(8, options.chats))]
    with tempfile.TemporaryDirectory(prefix="thumbprint-swap-") as folder:
        shelf = [prepare(base, Path(folder) / f"adapter{seed}", seed=seed) for seed in range(options.swaps)]
        outcomes = []
        for arm in options.arms.split(","):
            place = Path(folder) / arm
            place.mkdir()
            registry = Registry(place / "adapters")
            make = _maker(base, fresh=arm == "reload", threads=options.threads)
            swapping = open_arm(arm, make, registry, place, sampling)
            try:
                replies, stable = _chat_through_swaps(swapping, registry, base, shelf, questions, options)
            finally:
                swapping.close()
            alone = _Alone(base, shelf, list(stable), sampling, threads=options.threads)
            outcomes.append(_outcome(arm, replies, stable, alone))
        _print(outcomes, options)


def _maker(base: BaseModel, *, fresh: bool, threads: int) -> Callable[[], LocalPolicy]:
    """Makes a policy with a model of its own: read from disk again, or copied."""

    def make() -> LocalPolicy:
        own = load_base(TrainingSettings()) if fresh else replace(base, model=deepcopy(base.model))
        return LocalPolicy(base_model=own, threads=threads)

    return make


def _chat_through_swaps(
    arm: Arm,
    registry: Registry,
    base: BaseModel,
    shelf: Sequence[Prepared],
    questions: Sequence[str],
    options: argparse.Namespace,
) -> tuple[list[Reply], dict[str, float]]:
    """All replies, and when each version's STABLE was there."""
    replies: list[Reply] = []
    stop = threading.Event()

    def chat(number: int) -> None:
        while not stop.is_set():
            question = questions[number % len(questions)]
            asked = time.perf_counter()
            with arm.reader():
                version, stream = arm.ask(question)
                reply = Reply(question, version, asked)
                replies.append(reply)
                for _ in stream:
                    reply.times.append(time.perf_counter())
            reply.text, reply.finish = stream.text, stream.finish

    chats = [threading.Thread(target=chat, args=(number,), daemon=True) for number in range(options.chats)]
    for thread in chats:
        thread.start()
    time.sleep(1.0)
    stable: dict[str, float] = {}
    for prepared in shelf:
        version = publish(registry, base, prepared)
        stable[version] = time.perf_counter()
        arm.swap(version)
        while not any(reply.version == version and reply.times for reply in list(replies)):
            time.sleep(0.005)
        time.sleep(0.5)
    stop.set()
    for thread in chats:
        thread.join()
    return replies, stable


class _Alone:
    """What each version says to a question when nobody else is there, asked for when it is needed."""

    def __init__(
        self,
        base: BaseModel,
        shelf: Sequence[Prepared],
        versions: Sequence[str],
        sampling: Sampling,
        *,
        threads: int,
    ) -> None:
        self._base = base
        self._paths = dict(zip(versions, (prepared.path for prepared in shelf), strict=True))
        self._sampling = sampling
        self._said: dict[tuple[str, str], str] = {}

    def says(self, version: str, question: str) -> str:
        """The greedy reply through PEFT and ``generate``: none of the engine's parts."""
        if (version, question) not in self._said:
            model = self._model(version)
            ids = torch.tensor([encode_prompt(self._base.tokenizer, [Message("user", question)])])
            with torch.inference_mode():
                out = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=self._sampling.max_new_tokens,
                    pad_token_id=0,
                )
            self._said[version, question] = self._base.tokenizer.decode(
                out[0, ids.shape[1] :], skip_special_tokens=True
            )
        return self._said[version, question]

    def is_near_tie(self, version: str, question: str, text: str) -> bool:
        """Whether the two best tokens lie close where `text` first differs from what the version says alone."""
        alone = encode_text(self._base.tokenizer, self.says(version, question))
        other = encode_text(self._base.tokenizer, text)
        same = next((n for n, (a, b) in enumerate(zip(alone, other, strict=False)) if a != b), None)
        if same is None:
            same = min(len(alone), len(other))
        prompt = encode_prompt(self._base.tokenizer, [Message("user", question)])
        with torch.inference_mode():
            logits = self._model(version)(input_ids=torch.tensor([prompt + alone[:same]])).logits[0, -1]
        first, second = logits.topk(2).values.tolist()
        return bool(first - second < NEAR_TIE)

    def _model(self, version: str) -> Any:
        from peft import PeftModel

        plain: Any = deepcopy(self._base.model)
        if version == BASE_VERSION:
            return plain.eval()
        return PeftModel.from_pretrained(plain, str(self._paths[version])).eval()


def _outcome(arm: str, replies: Sequence[Reply], stable: dict[str, float], alone: _Alone) -> Outcome:
    sound = [reply for reply in replies if reply.finish in ("stop", "length")]
    differing = [
        reply for reply in sound if reply.text != alone.says(reply.version, reply.question).rstrip("\ufffd")
    ]
    ties = [reply for reply in differing if alone.is_near_tie(reply.version, reply.question, reply.text)]
    since = min(stable.values())
    gaps = [
        later - earlier
        for reply in replies
        for earlier, later in zip(reply.times, reply.times[1:], strict=False)
        if earlier >= since
    ]
    waits = [reply.times[0] - reply.asked for reply in replies if reply.times and reply.asked >= since]
    answers = [
        min(reply.times[0] for reply in replies if reply.version == version and reply.times) - at
        for version, at in stable.items()
    ]
    across = [
        reply
        for reply in replies
        if reply.times and any(reply.asked < at < reply.times[-1] for at in stable.values())
    ]
    return Outcome(
        arm=arm,
        replies=len(replies),
        across=len(across),
        failed=len(replies) - len(sound),
        mixed=len(differing) - len(ties),
        near_ties=len(ties),
        gap_median=1000 * statistics.median(gaps),
        gap_longest=1000 * max(gaps),
        wait_median=1000 * statistics.median(waits),
        wait_longest=1000 * max(waits),
        answers_median=statistics.median(answers),
        answers_longest=max(answers),
    )


def _print(outcomes: Sequence[Outcome], options: argparse.Namespace) -> None:
    machine = describe()
    print(" ".join(f"{key}={value}" for key, value in machine.items()))
    print(
        "\n| way | replies | across a swap | failed | mixed | near-ties | gap: median | longest "
        "| wait: median | longest | answers after: median | longest |"
    )
    print("|" + "---|" * 12)
    for one in outcomes:
        times = [one.gap_median, one.gap_longest, one.wait_median, one.wait_longest]
        counts = [one.arm, one.replies, one.across, one.failed, one.mixed, one.near_ties]
        shown = [*counts, *(f"{time:.0f} ms" for time in times)]
        shown += [f"{time:.2f} s" for time in (one.answers_median, one.answers_longest)]
        print("| " + " | ".join(map(str, shown)) + " |")
    rows = [asdict(one) for one in outcomes]
    print(json.dumps({"benchmark": "swap", **vars(options), **machine, "outcomes": rows}))


if __name__ == "__main__":
    main()
