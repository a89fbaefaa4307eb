"""Three ways of changing the adapter while people chat: the studio's, and the two that it is measured against.

Each begins replies and changes versions; none knows who chats or what is measured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from memory.database import open_database
from memory.ledger import Ledger
from memory.runs import Runs
from memory.schema import BASE_VERSION, Message
from studio.policy.interface import PolicyClosed, Sampling
from studio.policy.local import LocalPolicy
from studio.policy.stream import ReplyStream
from studio.serving import Serving
from training.registry import Registry


class Arm(Protocol):
    """One way of changing the adapter."""

    def ask(self, question: str) -> tuple[str, ReplyStream]:
        """Begin a reply; return the version that answers and its stream. May block."""

    def swap(self, version: str) -> None:
        """Serve a published version from now on."""

    def reader(self) -> AbstractContextManager[None]:
        """A context in which a chat holds its reply."""

    def close(self) -> None:
        """Free the model."""


class Engine:
    """The studio's own parts, as `studio.build` puts them together."""

    def __init__(
        self, make: Callable[[], LocalPolicy], registry: Registry, folder: Path, sampling: Sampling
    ) -> None:
        self._sampling = sampling
        self._database = open_database(f"sqlite:///{folder}/swap.db")
        self._runs = Runs(self._database)
        self._policy = make()
        self._serving = Serving(self._policy, registry, self._runs, Ledger(self._database), keep=3)
        self._serving.start()

    def ask(self, question: str) -> tuple[str, ReplyStream]:
        with self._serving.hold() as (current, _):
            stream = self._policy.start(
                [Message("user", question)], version=current.version, sampling=self._sampling
            )
            return current.version, stream

    def swap(self, version: str) -> None:
        self._runs.promote(version, actor="benchmark", reason="swap")

    @contextmanager
    def reader(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        self._serving.stop()
        self._policy.close()
        self._database.close()


class Drain:
    """A reader-writer lock around one policy: a swap waits for all replies, and all replies wait for a swap."""

    def __init__(self, make: Callable[[], LocalPolicy], registry: Registry, sampling: Sampling) -> None:
        self._registry = registry
        self._sampling = sampling
        self._policy = make()
        self._version = BASE_VERSION
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False

    def ask(self, question: str) -> tuple[str, ReplyStream]:
        stream = self._policy.start(
            [Message("user", question)], version=self._version, sampling=self._sampling
        )
        return self._version, stream

    @contextmanager
    def reader(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writing)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def swap(self, version: str) -> None:
        with self._changed:
            self._writing = True
            self._changed.wait_for(lambda: self._readers == 0)
            verified = self._registry.verify(version, base_identity=self._policy.identity)
            assert verified.manifest is not None
            self._policy.load(version, verified.path, verified.manifest)
            self._policy.release(self._version)
            self._version = version
            self._writing = False
            self._changed.notify_all()

    def close(self) -> None:
        self._policy.close()


class Reload:
    """The model is closed and loaded anew for every version; who asks meanwhile waits."""

    def __init__(self, make: Callable[[], LocalPolicy], registry: Registry, sampling: Sampling) -> None:
        self._make = make
        self._registry = registry
        self._sampling = sampling
        self._up = threading.Condition()
        self._serves: tuple[str, LocalPolicy] | None = (BASE_VERSION, make())

    def ask(self, question: str) -> tuple[str, ReplyStream]:
        while True:
            with self._up:
                self._up.wait_for(lambda: self._serves is not None)
                assert self._serves is not None
                version, policy = self._serves
            try:
                return version, policy.start(
                    [Message("user", question)], version=version, sampling=self._sampling
                )
            except PolicyClosed:
                continue

    @contextmanager
    def reader(self) -> Iterator[None]:
        yield

    def swap(self, version: str) -> None:
        with self._up:
            assert self._serves is not None
            _, old = self._serves
            self._serves = None
        old.close()
        policy = self._make()
        verified = self._registry.verify(version, base_identity=policy.identity)
        assert verified.manifest is not None
        policy.load(version, verified.path, verified.manifest)
        with self._up:
            self._serves = (version, policy)
            self._up.notify_all()

    def close(self) -> None:
        assert self._serves is not None
        self._serves[1].close()


def open_arm(
    arm: str, make: Callable[[], LocalPolicy], registry: Registry, folder: Path, sampling: Sampling
) -> Arm:
    """The way named `arm`. Raises `ValueError` for another name."""
    if arm == "engine":
        return Engine(make, registry, folder, sampling)
    if arm == "drain":
        return Drain(make, registry, sampling)
    if arm == "reload":
        return Reload(make, registry, sampling)
    raise ValueError(f"--arms holds {arm!r}; expected engine, reload and drain.")
