"""Starting replies: what the policy is shown, how many replies are drawn, and which version writes which
side.

The prompt made here is the one that is stored with the turn: exactly what the policy sees. Letter, place on
the page and version of a side are tossed independently, so none of them gives another away. This module
writes nothing down and hands the owner on unread.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from memory.schema import Conversation, Message, Node, Side
from memory.window import fit
from studio.exchange import SideView
from studio.intake import ChatRefused
from studio.policy.interface import Busy, Policy, PolicyClosed, PromptTooLong, Sampling, ServedVersion
from studio.serving import Serving
from studio.settings import StudioSettings


class Replies:
    """Makes prompts and starts streams. `rng` tosses the coins and draws the seeds. Thread-safe."""

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

    def prompt(
        self, conversation: Conversation, path: Sequence[Node], *, said: str | None
    ) -> tuple[Message, ...]:
        """What the policy is shown of `conversation` up to the end of `path` (and `said` after it), within
        its context.

        Raises `ChatRefused` when the last message alone is too long.
        """
        messages = [Message("system", conversation.system_prompt)] if conversation.system_prompt else []
        messages += [node.message for node in path]
        if said is not None:
            messages.append(Message("user", said))
        budget = self._policy.context_tokens - self._settings.max_new_tokens
        try:
            return fit(joined(messages), budget=budget, count_tokens=self._policy.count_tokens)
        except ValueError as error:  # too long, or nothing that the chat template can express
            raise ChatRefused(str(error)) from error

    def should_compare(self, path: Sequence[Node]) -> bool:
        """Does the reply after `path` come as a blind pair? Every ``compare_every``-th reply of a
        conversation does.
        """
        every = self._settings.compare_every
        replies = sum(node.message.role == "assistant" for node in path)
        return every > 0 and (replies + 1) % every == 0

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


def joined(messages: Sequence[Message]) -> list[Message]:
    """The messages with neighbours of the same role made one.

    Many chat templates refuse two user messages in a row, and a message whose reply never came is followed
    by another.
    """
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            message = Message(message.role, f"{joined.pop().content}\n\n{message.content}")
        joined.append(message)
    return joined
