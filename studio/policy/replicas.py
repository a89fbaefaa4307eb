"""Several servers that answer alike: which of them live, which adapters each holds, and how one comes back.

A replica serves once its base has been examined and every adapter has been loaded into it and proven; one that breaks
off is taken out at once, and brought back the same way. An adapter is placed when all living replicas hold it. Every
loading of an adapter gets a name that was never used: vLLM's prefix cache goes by name.

Everything here runs on one event loop. It knows no reply and no line, only how to say that something has changed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from memory.schema import BASE_VERSION
from studio.policy.vllm_base import KnownBase
from studio.policy.vllm_proof import Adapter, WrongBase, examine, place, place_null
from studio.policy.vllm_server import Server, ServerGone, ServerRefused, ServerSilent
from training.model_files import ModelUnavailable
from training.registry import AdapterRefused

logger = logging.getLogger(__name__)

MOST_SILENCES = 3
"""So many health checks without an answer take a replica out; a broken connection does at once."""
PATIENCE = 10
"""A replica that answers wrongly is asked this many times more seldom than one that does not answer."""


class NoReplica(ConnectionError):
    """No server answers; the message names them and their problems."""


@dataclass(eq=False)
class Replica:
    """One server, and what is known of it. `names` maps versions to what they are called there."""

    server: Server
    alive: bool = False
    problem: str = "it has not been asked yet"
    model: str = ""
    base: list[float] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    replies: set[asyncio.Task[None]] = field(default_factory=set)
    silences: int = 0

    def model_of(self, version: str) -> str:
        """What to ask this server for to get `version`."""
        return self.names.get(version, self.model)


class Replicas:
    """The servers. `null` is the folder of the adapter of zeros through which the base is asked for, if there is one.

    `on_change` is called when a replica comes or goes.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        known: KnownBase,
        *,
        null: str | None,
        tolerance: float,
        health_seconds: float,
        on_change: Callable[[], None],
    ) -> None:
        self.all = [Replica(server) for server in servers]
        self._known = known
        self._null = null
        self._tolerance = tolerance
        self._health_seconds = health_seconds
        self._on_change = on_change
        self._adapters: dict[str, Adapter] = {}
        self._placing = asyncio.Lock()
        self._watches: list[asyncio.Task[None]] = []

    def living(self) -> list[Replica]:
        """The replicas that can answer now."""
        return [replica for replica in self.all if replica.alive]

    def problems(self) -> str:
        """A sentence that names what is wrong with the replicas that do not serve."""
        return " ".join(replica.problem for replica in self.all if not replica.alive)

    async def open(self, *, wait_seconds: float) -> None:
        """Ask every server, again until one serves, then watch them all.

        Raises `training.model_files.ModelUnavailable` when none does within `wait_seconds`, or all answer wrongly.
        """
        until = time.monotonic() + wait_seconds
        while True:
            wrong = await asyncio.gather(*(self._bring_back(replica) for replica in self.all))
            if self.living():
                break
            if all(wrong) or time.monotonic() >= until:
                raise ModelUnavailable(
                    f"None of the model servers in THUMBPRINT_VLLM_URLS can be used. {self.problems()}"
                )
            await asyncio.sleep(self._health_seconds)
        self._watches = [asyncio.create_task(self._watch(replica)) for replica in self.all]

    async def place(self, adapter: Adapter) -> None:
        """Load and prove `adapter` on every living replica, or on none.

        Raises `training.registry.AdapterRefused`, or `NoReplica` when nobody is there to hold it (try again later).
        """
        async with self._placing:
            living = self.living()
            outcomes = await asyncio.gather(
                *(self._place(replica, adapter) for replica in living), return_exceptions=True
            )
            for replica, outcome in zip(living, outcomes, strict=True):
                if isinstance(outcome, ServerGone | ServerSilent):
                    self.take_out(replica, str(outcome))
            refusals = [outcome for outcome in outcomes if isinstance(outcome, AdapterRefused)]
            others = [
                outcome
                for outcome in outcomes
                if isinstance(outcome, BaseException)
                and not isinstance(outcome, AdapterRefused | ServerGone | ServerSilent)
            ]
            if others or refusals or not self.living():
                await self._remove(adapter.version)
            for error in (*others, *refusals):
                raise error
            if not self.living():
                raise NoReplica(f"Adapter {adapter.version} cannot be loaded: {self.problems()}")
            self._adapters[adapter.version] = adapter

    async def drop(self, version: str) -> None:
        """Unload `version` everywhere. No reply may use it any more."""
        async with self._placing:
            self._adapters.pop(version, None)
            await self._remove(version)

    def take_out(self, replica: Replica, problem: str) -> None:
        """Send nobody to `replica` until it has proven itself again, and end what runs on it."""
        replica.problem = problem
        if not replica.alive:
            return
        replica.alive, replica.silences = False, 0
        logger.warning("A model server is taken out: %s", problem)
        current = asyncio.current_task()
        for task in replica.replies:
            if task is not current:
                task.cancel()
        self._on_change()

    async def close(self) -> None:
        """Stop watching, unload every adapter where that is quick, and close the connections."""
        for watch in self._watches:
            watch.cancel()
        unloading = [
            self._unload(replica, name) for replica in self.living() for name in replica.names.values()
        ]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*unloading), timeout=2.0)
        for replica in self.all:
            replica.alive = False
            await replica.server.close()

    async def _watch(self, replica: Replica) -> None:
        """Look after one replica for ever."""
        wrong = False
        while True:
            await asyncio.sleep(self._health_seconds * (PATIENCE if wrong else 1))
            try:
                if replica.alive:
                    await self._check(replica)
                else:
                    wrong = await self._bring_back(replica)
            except Exception:
                logger.exception("Looking after %s failed; it goes on", replica.server.url)

    async def _check(self, replica: Replica) -> None:
        names = set(replica.names.values())
        try:
            facts = await replica.server.facts()
        except ServerSilent as error:
            replica.silences += 1
            if replica.silences >= MOST_SILENCES:
                self.take_out(replica, str(error))
        except (ServerGone, ServerRefused) as error:
            self.take_out(replica, str(error))
        else:
            replica.silences = 0
            # A name unloaded while the server was answering is no loss.
            lost = (names & set(replica.names.values())) - facts.adapters
            if lost:
                self.take_out(
                    replica, f"The model server {replica.server.url} lost its adapters; it was restarted."
                )

    async def _bring_back(self, replica: Replica) -> bool:
        """Let `replica` serve if it proves itself. Returns whether it answered, but wrongly."""
        wrong = False
        try:
            facts, base = await examine(replica.server, self._known)
            async with self._placing:
                for name in facts.adapters & set(replica.names.values()):
                    await self._unload(replica, name)
                replica.model, replica.base, replica.names = facts.model, base, {}
                await self._place_null(replica)
                for adapter in self._adapters.values():
                    await self._place(replica, adapter)
                replica.alive = True
        except (ServerGone, ServerSilent) as error:
            problem = str(error)
        except (WrongBase, ServerRefused, AdapterRefused) as error:
            problem, wrong = str(error), True
        else:
            logger.info("The model server %s serves.", replica.server.url)
            replica.problem = ""
            self._on_change()
            return False
        if problem != replica.problem:
            logger.warning("A model server stays out: %s", problem)
        replica.problem = problem
        return wrong

    async def _place_null(self, replica: Replica) -> None:
        if self._null is None:
            return
        name = _new_name(BASE_VERSION, self._known.identity[:8])
        replica.base = await place_null(
            replica.server,
            self._null,
            name=name,
            base=replica.base,
            known=self._known,
            tolerance=self._tolerance,
        )
        replica.names[BASE_VERSION] = name

    async def _place(self, replica: Replica, adapter: Adapter) -> None:
        name = _new_name(adapter.version, adapter.manifest.fingerprint)
        await place(
            replica.server,
            adapter,
            name=name,
            base=replica.base,
            known=self._known,
            tolerance=self._tolerance,
        )
        replica.names[adapter.version] = name

    async def _remove(self, version: str) -> None:
        for replica in self.all:
            name = replica.names.pop(version, None)
            if name is not None and replica.alive:
                await self._unload(replica, name)

    async def _unload(self, replica: Replica, name: str) -> None:
        """Unload, or leave it where it is: without its name nobody can ask for it."""
        try:
            await replica.server.unload(name)
        except (ServerGone, ServerSilent, ServerRefused) as error:
            logger.warning("%s could not be unloaded from %s: %s", name, replica.server.url, error)


def _new_name(version: str, fingerprint: str) -> str:
    return f"{version}-{fingerprint}-{secrets.token_hex(4)}"
