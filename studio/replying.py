"""Starting replies: how many are drawn, and which version writes which side.

Letter, place on the page and version of a side are tossed independently, so none of them gives another away. This
module makes no prompt, writes nothing down and hands the owner on unread.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from memory.schema import Message, Side
from studio.exchange import SideView
from studio.intake import ChatRefused
from studio.policy.interface import Busy, Policy, PolicyClosed, PromptTooLong, Sampling, ServedVersion
from studio.serving import Serving
from studio.settings import StudioSettings


class Replies:
    """Starts streams. `rng` tosses the coins and draws the seeds. Thread-safe."""

    def __init__(
        self,
        settings: StudioSettings,
        *,
        policy: Policy,
        serving: Serving,
        new_id: Callable[[], str],
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._serving = serving
        self._new_id = new_id
        self._rng = rng
        self._tossing = threading.Lock()

    def should_compare(self, said_before: int) -> bool:
        """Does the reply come as a blind pair, with so many messages said before it? Every ``compare_every``-th reply
        of a conversation does.
        """
        every = self._settings.compare_every
        return every > 0 and (said_before // 2 + 1) % every == 0

    def start(self, prompt: tuple[Message, ...], *, owner: str, compare: bool) -> tuple[SideView, ...]:
        """One stream, or two in the order shown. A pair that finds room for one reply only becomes a single
        reply.

        Raises `ChatRefused` when the line is full, the model cannot take the prompt, or the studio is
        closing.
        """
        sides: list[SideView] = []
        with self._serving.hold() as (current, previous):
            for letter, served, seed in self._toss(current, previous, compare=compare):
                try:
                    sides.append(self._start_side(prompt, letter, served, seed=seed, owner=owner))
                except Busy as error:
                    if not sides:
                        raise ChatRefused(f"{error} Your message was not sent.") from error
                except (PromptTooLong, PolicyClosed, ValueError) as error:
                    raise ChatRefused(str(error)) from error
        return tuple(sides)

    def _toss(
        self, current: ServedVersion, previous: ServedVersion | None, *, compare: bool
    ) -> list[tuple[Side, ServedVersion, int]]:
        """Letter, version and seed of each side, in the order shown.

        Greedy replies of one version would be the same twice, so then only the version before makes a pair.
        """
        with self._tossing:
            versions = [current]
            if compare and previous is not None and self._rng.random() < self._settings.compare_with_previous:
                versions = [current, previous]
            elif compare and self._settings.temperature > 0:
                versions = [current, current]
            letters: list[Side] = ["A", "B"]
            if len(versions) == 2:
                self._rng.shuffle(letters)
                self._rng.shuffle(versions)
            return [
                (letter, served, self._rng.getrandbits(31))
                for letter, served in zip(letters, versions, strict=False)
            ]

    def _start_side(
        self, prompt: tuple[Message, ...], letter: Side, served: ServedVersion, *, seed: int, owner: str
    ) -> SideView:
        drawn: dict[str, Any] = {
            "temperature": self._settings.temperature,
            "top_p": self._settings.top_p,
            "max_new_tokens": self._settings.max_new_tokens,
            "seed": seed,
        }
        stream = self._policy.start(prompt, version=served.version, sampling=Sampling(**drawn), owner=owner)
        return SideView(letter, self._new_id(), stream, stream.served, drawn)
