"""Does the studio stay as it is under hours of use? Many people at once, and then: is all as before?

    python -m benchmarks.soak [--seconds 120] [--seed 1] [--model FOLDER] [--people 12] [--every 5]

A real studio (database, ledger, registry, local policy; no page) is used by seeded people: they open conversations,
send, retry, stop replies in the middle, vote on pairs or skip them, leave without waiting; now and then somebody sends
what must be refused. Every few seconds an adapter is promoted: usually a new one, sometimes an earlier one, sometimes a
damaged one that must not be served. A reply is *lost* when it was begun and, after the end, is neither over nor written
into the ledger. Prints memory, threads and file handles as time goes by, and one JSON line; exits 1 when something
was lost. Reads /proc, so it runs on Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.shelf import prepare, publish
from memory.judgements import UnknownTurn
from memory.schema import BASE_VERSION
from studio.build import Studio, build
from studio.chat import ChatRefused, Exchange
from studio.settings import StudioSettings
from training.base import BaseModel, load_base

_SETTLED_SECONDS = 60.0
"""How long the last replies are waited for at the end."""

_QUESTIONS = (
    "How do I boil an egg?",
    "And then?",
    "What is a good way to learn a language when I have little time?",
    "Thanks!",
    "Tell me a short story about a train. 🚂",
)


@dataclass(frozen=True)
class Sample:
    """The process at one moment; `at` in seconds since the start, `resident` in MiB."""

    at: float
    resident: float
    threads: int
    handles: int
    begun: int
    adapters: int


@dataclass
class Result:
    """What happened. `finishes` counts the ends of replies, `acts` what people did and what became of it."""

    samples: list[Sample] = field(default_factory=list)
    finishes: dict[str, int] = field(default_factory=dict)
    acts: dict[str, int] = field(default_factory=dict)
    begun: int = 0
    lost: int = 0
    before: Sample | None = None
    after: Sample | None = None

    def growth(self) -> float:
        """MiB by which the second half of the time was larger than the middle, at its end."""
        steady = self.samples[len(self.samples) // 2 :]
        return steady[-1].resident - steady[0].resident


class Soak:
    """Everybody who uses `studio`, and whoever promotes adapters. All choices are drawn from `seed`."""

    def __init__(self, studio: Studio, base: BaseModel, folder: Path, *, seed: int, people: int) -> None:
        self._studio = studio
        self._base = base
        self._rng = random.Random(seed)
        self._shelf = [prepare(base, folder / f"adapter{n}", seed=n, strength=0.05) for n in range(3)]
        self._people = [f"person {n}" for n in range(people)]
        self._open: dict[str, str] = {}
        self._watched: list[Exchange] = []
        self._turns: list[tuple[str, Any]] = []
        self._published: list[str] = []
        self.result = Result()

    def run(self, seconds: float, *, every: float, show: Callable[[Sample], None]) -> Result:
        """Use the studio for `seconds`, then wait for what is under way, and count what is missing."""
        result, start = self.result, time.monotonic()
        next_sample, next_swap = 0.0, 1.0
        while (at := time.monotonic() - start) < seconds:
            if at >= next_sample:
                result.samples.append(self._sample(at))
                show(result.samples[-1])
                next_sample += every
            if at >= next_swap:
                self._swap()
                next_swap = at + self._rng.uniform(1.0, 3.0)
            self._somebody_acts()
            self._look_after_replies()
            time.sleep(self._rng.expovariate(60.0))
        self._settle()
        result.samples.append(self._sample(time.monotonic() - start))
        show(result.samples[-1])
        return result

    def _sample(self, at: float) -> Sample:
        return sample(at, begun=self.result.begun, adapters=len(self._studio.policy.loaded()))

    def _somebody_acts(self) -> None:
        owner = self._rng.choice(self._people)
        act = self._rng.choices(("send", "new", "retry", "stop", "refused"), weights=(24, 4, 4, 1, 1))[0]
        try:
            self._act(owner, act)
            _count(self.result.acts, act)
        except ChatRefused:
            _count(self.result.acts, f"{act}, refused")

    def _act(self, owner: str, act: str) -> None:
        chat = self._studio.chat
        if act == "new" or owner not in self._open:
            if owner in self._open and self._rng.random() < 0.5:
                chat.owned.hide(owner, self._open[owner])
            self._open[owner] = chat.owned.begin(owner).id
        where = self._open[owner]
        if act == "stop":
            running = [each for each in self._watched if each.owner == owner and not each.done]
            for exchange in running[:1]:
                chat.stop(exchange.id, owner=owner)
        elif act == "retry":
            path = chat.owned.path(owner, where)
            if path:
                self._watch(chat.retry(owner, where, path[-1].id))
        elif act == "refused":
            chat.send(owner, where, "x" * 30_000)
        else:
            self._watch(chat.send(owner, where, self._rng.choice(_QUESTIONS)))

    def _watch(self, exchange: Exchange) -> None:
        self._watched.append(exchange)
        self._turns += [(side.turn_id, side.stream) for side in exchange.sides]
        self.result.begun += len(exchange.sides)

    def _look_after_replies(self) -> None:
        """Judge what has ended, and forget it."""
        for exchange in [each for each in self._watched if each.done]:
            self._watched.remove(exchange)
            try:
                self._judge(exchange)
            except ChatRefused:
                _count(self.result.acts, "judgement, refused")
        if len(self._turns) > 500:
            self._check_turns()

    def _judge(self, exchange: Exchange) -> None:
        studio, owner = self._studio, exchange.owner
        if exchange.asks and self._rng.random() < 0.8:
            label = self._rng.choice(("A", "B", "tie", "both_bad"))
            studio.chat.vote(exchange.id, label, owner, owner=owner)
            _count(self.result.acts, "vote")
        elif exchange.asks:
            studio.chat.skip(exchange.id, owner=owner)
            _count(self.result.acts, "skip")

    def _swap(self) -> None:
        """A new adapter, an earlier one or a damaged one."""
        kind = self._rng.choices(("new", "earlier", "damaged"), weights=(6, 2, 1))[0]
        if kind == "earlier" and self._published:
            version = self._rng.choice([BASE_VERSION, *self._published[-8:]])
        else:
            version = publish(self._studio.registry, self._base, self._rng.choice(self._shelf))
            if kind == "damaged":
                weights = self._studio.registry.root / version / "adapter_model.safetensors"
                weights.write_bytes(weights.read_bytes()[:-7])
            else:
                self._published.append(version)
        self._studio.runs.promote(version, actor="soak", reason=kind)
        _count(self.result.acts, f"promote, {kind}")

    def _settle(self) -> None:
        deadline = time.monotonic() + _SETTLED_SECONDS
        for exchange in self._watched:
            exchange.wait(max(0.0, deadline - time.monotonic()))
        self._look_after_replies()
        self._check_turns(deadline=deadline)
        self.result.lost += len(self._turns)

    def _check_turns(self, *, deadline: float = 0.0) -> None:
        """Forget the replies that are over and written down; until `deadline` the writer is waited for."""
        while True:
            left = [
                (turn, stream) for turn, stream in self._turns if not stream.done or not self._written(turn)
            ]
            gone = {turn for turn, _ in self._turns} - {turn for turn, _ in left}
            for turn, stream in self._turns:
                if turn in gone:
                    _count(self.result.finishes, str(stream.finish))
            self._turns = left
            if not left or time.monotonic() >= deadline:
                return
            time.sleep(0.05)

    def _written(self, turn: str) -> bool:
        try:
            self._studio.ledger.turn(turn)
        except UnknownTurn:
            return False
        return True


def _count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1


def sample(at: float, *, begun: int = 0, adapters: int = 0) -> Sample:
    """This process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        at=round(at, 1),
        resident=round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        threads=len(os.listdir("/proc/self/task")),
        handles=len(os.listdir("/proc/self/fd")),
        begun=begun,
        adapters=adapters,
    )


def soak(
    settings: StudioSettings,
    seconds: float,
    *,
    seed: int,
    people: int = 12,
    every: float = 5.0,
    show: Callable[[Sample], None] = lambda _: None,
) -> Result:
    """Build a studio, use it for `seconds`, close it; `before` and `after` frame its life."""
    base = load_base(settings)
    gc.collect()
    before = sample(0.0)
    with tempfile.TemporaryDirectory(prefix="thumbprint-soak-") as folder, build(settings) as studio:
        result = Soak(studio, base, Path(folder), seed=seed, people=people).run(
            seconds, every=every, show=show
        )
    del studio
    gc.collect()
    result.before, result.after = before, sample(seconds)
    return result


def main() -> int:
    """Soak, print, and say with the exit status whether anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long")
    parser.add_argument("--seed", type=int, default=1, help="what people do")
    parser.add_argument("--people", type=int, default=12, help="how many use the studio at once")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two lines")
    parser.add_argument("--model", default="", help="folder of a model; empty: the one that ships")
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # refused adapters are part of it, and each is an error in the log
    print("  seconds  memory MiB  threads  handles  replies  adapters")

    def show(one: Sample) -> None:
        print(
            f"{one.at:9.0f} {one.resident:11.0f} {one.threads:8} {one.handles:8} {one.begun:8} {one.adapters:9}",
            flush=True,
        )

    with tempfile.TemporaryDirectory(prefix="thumbprint-soak-data-") as folder:
        chosen = {"model": options.model} if options.model else {}
        settings = StudioSettings(data_dir=Path(folder), compare_every=2, compare_with_previous=0.5, **chosen)
        result = soak(
            settings,
            options.seconds,
            seed=options.seed,
            people=options.people,
            every=options.every,
            show=show,
        )
    assert result.before is not None and result.after is not None
    print(
        f"\n{result.begun} replies begun, {result.lost} lost. Ends: {result.finishes}. Acts: {result.acts}."
    )
    print(
        f"Threads {result.before.threads} before, {result.after.threads} after; handles {result.before.handles} "
        f"before, {result.after.handles} after; memory in the second half {result.growth():+.0f} MiB."
    )
    print(json.dumps({"benchmark": "soak", **vars(options), **describe(), **asdict(result)}))
    return 1 if result.lost else 0


if __name__ == "__main__":
    sys.exit(main())
