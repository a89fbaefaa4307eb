"""Which adapter answers, and how another one takes over while people keep chatting.

Promotions are rows in the database, written by the trainer or by an operator's rollback; this watches for
them. A swap is load -> verify -> route -> drain -> release: the new adapter is loaded and its fingerprint
proven while the old one answers, then the next replies start on the new one, those under way finish on
theirs (the version is an argument of every reply), and an adapter nobody needs any more is released. An
adapter that cannot be trusted changes nothing: the old one stays served, and `refused` says why. The base
model is always there to fall back on.

This module knows no conversation, no page and no training; it never writes an adapter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from memory.database import StorageError
from memory.ledger import Ledger
from memory.runs import Runs
from memory.schema import BASE_VERSION, Occurrence, Promotion
from studio.policy.interface import Policy, ServedVersion
from training.registry import AdapterRefused, Manifest, Registry, UnknownAdapter

logger = logging.getLogger(__name__)

PROMOTIONS_LOOKED_AT = 1_000
"""How far back a start looks for a promotion that can still be served."""


class Serving:
    """The served version and the one before it, kept up to date by a daemon thread. Thread-safe.

    `keep` is the most adapters kept loaded beside the served one; `poll_seconds` how often promotions are
    looked for.
    """

    def __init__(
        self,
        policy: Policy,
        registry: Registry,
        runs: Runs,
        ledger: Ledger,
        *,
        keep: int,
        poll_seconds: float = 0.5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._registry = registry
        self._runs = runs
        self._ledger = ledger
        self._keep = keep
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._swapping = threading.Lock()
        self._changed = threading.Condition()
        self._current = policy.base()
        self._previous: ServedVersion | None = None
        self._refused: str | None = None
        self._problem: str | None = None
        self._loaded: OrderedDict[str, ServedVersion] = OrderedDict()
        self._held: Counter[str] = Counter()
        self._seen = 0
        self._listeners: list[Callable[[ServedVersion], None]] = []
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> ServedVersion:
        """What the next reply is answered by."""
        with self._changed:
            return self._current

    @property
    def previous(self) -> ServedVersion | None:
        """The version that was served before the current one and stands by for comparisons; None when there
        is none.

        Versions that were rolled back are not put before people again.
        """
        with self._changed:
            return self._previous

    @property
    def refused(self) -> str | None:
        """Why the last promotion is not what is served (or not known); None while it is."""
        with self._changed:
            return self._problem or self._refused

    def start(self) -> None:
        """Serve the last promotion that can be trusted, else the base; then watch for promotions."""
        self.check()
        self._thread = threading.Thread(target=self._watch, name="serving", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. What is served stays served."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def check(self) -> None:
        """Look for a new promotion now, and serve it. Called by the watching thread; harmless to call at
        any time.
        """
        with self._swapping:
            last = self._runs.served()
            if last is None or last.sequence == self._seen:
                return
            promotions = self._runs.promotions(limit=PROMOTIONS_LOOKED_AT)
            self._serve_newest(promotions, last)
            self._seen = last.sequence

    def add_listener(self, listener: Callable[[ServedVersion], None]) -> None:
        """Call `listener` with the new version after every swap, on the watching thread."""
        self._listeners.append(listener)

    def wait_for(self, version: str, *, timeout: float) -> bool:
        """Block until `version` is served; False when `timeout` seconds passed first."""
        self._wake.set()
        with self._changed:
            return self._changed.wait_for(lambda: self._current.version == version, timeout)

    @contextmanager
    def hold(self) -> Iterator[tuple[ServedVersion, ServedVersion | None]]:
        """The current and the previous version, neither of which is released before the block ends."""
        with self._changed:
            current, previous = self._current, self._previous
            held = [served.version for served in (current, previous) if served is not None]
            self._held.update(held)
        try:
            yield current, previous
        finally:
            with self._changed:
                self._held.subtract(held)

    def ensure(self, version: str) -> ServedVersion:
        """Load an earlier version, verified, to compare against. Raises `AdapterRefused` with the reason."""
        with self._swapping:
            try:
                served = self._load(version)
            except ConnectionError as error:
                raise AdapterRefused(str(error)) from error
            self._release_surplus()
            return served

    def roll_back(self, version: str, *, actor: str, reason: str) -> Promotion:
        """Serve an earlier version again, from now on. Raises `AdapterRefused` (and promotes nothing) when
        it cannot be.

        The version is checked on disk and loaded first, so an operator sees the reason at once.
        """
        if version != BASE_VERSION:
            self._verified(version)
        self.ensure(version)
        promotion = self._runs.promote(version, actor=actor, reason=reason)
        self.check()
        return promotion

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self.check()
                problem = None
            except Exception as error:
                problem = f"The studio could not look for a new version and will try again: {error}"
                if problem != self._problem:
                    logger.exception("Looking for a new version failed; the old one stays served")
            with self._changed:
                self._problem = problem
            self._wake.wait(self._poll_seconds)
            self._wake.clear()

    def _serve_newest(self, promotions: list[Promotion], last: Promotion) -> None:
        """Serve the last promotion, or when it is refused keep what is served, or at the start an earlier
        one.
        """
        reasons: dict[str, str] = {}
        first_time = self._seen == 0
        for promotion in promotions:
            if promotion.version in reasons:
                continue
            try:
                served = self._load(promotion.version)
            except AdapterRefused as error:
                reasons[promotion.version] = str(error)
                self._note_refusal(promotion, str(error))
                if not first_time:
                    break
                continue
            self._route(served, promotions, reasons=reasons)
            break
        served = self.current
        reason = reasons.get(last.version)
        with self._changed:
            self._refused = (
                f"{last.version} is not served: {reason} Served instead: {served.version}."
                if reason
                else None
            )
        self._release_surplus()

    def _route(self, served: ServedVersion, promotions: list[Promotion], *, reasons: dict[str, str]) -> None:
        """Let new replies start on `served`, then make ready what stood before it."""
        with self._changed:
            moved = served != self._current
            self._current, self._previous = served, None
            self._changed.notify_all()
        previous = self._load_previous(served.version, promotions, reasons=reasons)
        with self._changed:
            self._previous = previous
        if moved:
            logger.info("Now serving %s (fingerprint %s)", served.version, served.fingerprint)
            for listener in self._listeners:
                listener(served)

    def _load_previous(
        self, version: str, promotions: list[Promotion], *, reasons: dict[str, str]
    ) -> ServedVersion | None:
        line = _line_of_descent(promotions, until=version)
        for earlier in reversed(line[:-1]):
            if earlier in reasons:
                continue
            try:
                return self._load(earlier)
            except AdapterRefused as error:
                logger.warning("%s cannot be compared against: %s", earlier, error)
        return None

    def _load(self, version: str) -> ServedVersion:
        """Load `version` if it is not loaded, and count it as the most recently used."""
        if version == BASE_VERSION:
            return self._policy.base()
        served = self._loaded.get(version)
        if served is None:
            served = self._policy.load(version, *self._verified(version))
        self._loaded[version] = served
        self._loaded.move_to_end(version)
        return served

    def _verified(self, version: str) -> tuple[Path, Manifest]:
        try:
            adapter = self._registry.verify(version, base_identity=self._policy.identity)
        except UnknownAdapter as error:
            raise AdapterRefused(str(error)) from error
        except OSError as error:
            raise AdapterRefused(f"Adapter {version} cannot be read: {error}") from error
        if adapter.manifest is None:
            raise AdapterRefused(f"Adapter {version} has no manifest; publish it anew.")
        return adapter.path, adapter.manifest

    def _release_surplus(self) -> None:
        """Release the least recently used adapters beyond `keep`; the policy waits for their last reply to
        end.
        """
        with self._changed:
            needed = {self._current.version, *(held for held, count in self._held.items() if count > 0)}
            if self._previous is not None:
                needed.add(self._previous.version)
            spare = [version for version in self._loaded if version not in needed]
            room = self._keep - len(needed & self._loaded.keys() - {self._current.version})
            surplus = spare[: max(0, len(spare) - max(0, room))]
            for version in surplus:
                del self._loaded[version]
        for version in surplus:
            self._policy.release(version)

    def _note_refusal(self, promotion: Promotion, reason: str) -> None:
        logger.error("Promotion %d of %s is refused: %s", promotion.sequence, promotion.version, reason)
        detail = {"reason": reason, "promotion": promotion.sequence}
        try:
            self._ledger.note(
                Occurrence("adapter_refused", promotion.version, promotion.actor, self._clock(), detail)
            )
        except StorageError as error:
            logger.warning("The refusal is in this log only: %s", error)


def _line_of_descent(promotions: list[Promotion], *, until: str) -> list[str]:
    """The versions that stand, oldest first, ending at `until`; `promotions` come newest first.

    Promoting a version that already stands is a rollback: it takes down everything that was put above it.
    """
    line = [BASE_VERSION]
    for promotion in reversed(promotions):
        if promotion.version in line:
            del line[line.index(promotion.version) + 1 :]
        else:
            line.append(promotion.version)
    return line[: line.index(until) + 1] if until in line else [*line, until]
