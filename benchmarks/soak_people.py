"""The people of `benchmarks.soak`: they chat, stop, retry, vote and leave, and somebody promotes adapters meanwhile.

Everything they do is drawn from a seed and goes through the studio's services, as the page's would. A reply is *lost*
when it was begun and, after the end, is neither over nor written into the ledger. It builds no studio, prints nothing.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.shelf import prepare, publish
from memory.judgements import UnknownTurn
from memory.schema import BASE_VERSION
from studio.build import Studio
from studio.chat import ChatRefused, Exchange
from studio.policy.local import LocalPolicy
from training.base import BaseModel

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
    """The process at one moment; `at` in seconds since the start, `resident` in MiB, `cache` in MiB of them."""

    at: float
    resident: float
    threads: int
    handles: int
    begun: int
    adapters: int
    cache: float


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
        policy = self._studio.policy
        cache = policy.cached_mib if isinstance(policy, LocalPolicy) else 0.0
        return sample(at, begun=self.result.begun, adapters=len(policy.loaded()), cache=cache)

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


def sample(at: float, *, begun: int = 0, adapters: int = 0, cache: float = 0.0) -> Sample:
    """This process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        at=round(at, 1),
        resident=round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        threads=len(os.listdir("/proc/self/task")),
        handles=len(os.listdir("/proc/self/fd")),
        begun=begun,
        adapters=adapters,
        cache=round(cache, 1),
    )
