"""Which versions a policy offers, and how many replies use each: what is released goes when its last reply has ended.

Begin to use, give back, offer and release may come from any thread and in any order. It knows no adapters and no
servers: how something is taken out is the policy's to say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from memory.schema import BASE_VERSION
from studio.policy.interface import ServedVersion, UnknownVersion


@dataclass(eq=False)
class Offered:
    """A version that can answer, by the `name` that the engine has for it; the base has none and is never dropped."""

    served: ServedVersion
    name: str | None
    replies: int = 0
    released: bool = False


class Versions:
    """The versions that may be asked for, beside `base`.

    `drop` takes out one that nobody uses and that is not offered any more. It is called under the table's lock, after
    the entry has gone, so that nobody begins to use what is being dropped, and a later offer comes after it; it must
    return at once and not call back.
    """

    def __init__(self, base: ServedVersion, *, drop: Callable[[str], None]) -> None:
        self._base = Offered(base, None)
        self._drop = drop
        self._lock = threading.Lock()
        self._offered: dict[str, Offered] = {}

    def all(self) -> list[ServedVersion]:
        """Those on offer, in the order of loading; the base is not among them."""
        with self._lock:
            return [one.served for one in self._offered.values() if not one.released]

    def find(self, version: str) -> ServedVersion | None:
        """What is held as `version`, and on offer again from now on; None when it has to be loaded."""
        if version == BASE_VERSION:
            return self._base.served
        with self._lock:
            if (found := self._offered.get(version)) is None:
                return None
            found.released = False
            return found.served

    def offer(self, served: ServedVersion, name: str) -> ServedVersion:
        """Offer what has been loaded under `name`."""
        with self._lock:
            self._offered[served.version] = Offered(served, name)
        return served

    def begin(self, version: str) -> Offered:
        """Count one more reply that uses `version`. Raises `UnknownVersion`."""
        if version == BASE_VERSION:
            return self._base
        with self._lock:
            found = self._offered.get(version)
            if found is None or found.released:
                known = ", ".join([BASE_VERSION, *(v for v, x in self._offered.items() if not x.released)])
                raise UnknownVersion(f"Version {version!r} is not loaded; there are: {known}.")
            found.replies += 1
            return found

    def end(self, used: Offered) -> None:
        """Count one reply less."""
        if used is self._base:
            return
        with self._lock:
            used.replies -= 1
            self._drop_unused(used)

    def release(self, version: str) -> None:
        """Offer `version` no more. Idempotent."""
        with self._lock:
            if (found := self._offered.get(version)) is not None:
                found.released = True
                self._drop_unused(found)

    def _drop_unused(self, one: Offered) -> None:
        version = one.served.version
        if one.name is not None and one.released and not one.replies and self._offered.get(version) is one:
            del self._offered[version]
            self._drop(one.name)
