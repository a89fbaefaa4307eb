"""What answers a chat: the contract between the studio and any policy, whatever engine stands behind it.

A policy holds one base model and any number of adapter versions. The version is an argument of every request, never a
setting, so a swap is a change of what the next request asks for, and replies under way keep what they began with.
This module knows no model, no tokenizer, no LangChain and no database; it must stay cheap to import.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from memory.schema import BASE_VERSION, Finish, Message
from training.registry import Manifest


@dataclass(frozen=True)
class Sampling:
    """How one reply is drawn. `temperature` 0 is greedy; `seed` None draws a fresh one; `stop` ends a reply early.

    A stop word is cut off the reply, together with everything after it.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"Sampling temperature is {self.temperature}; expected 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"Sampling top_p is {self.top_p}; expected more than 0 and at most 1.")
        if self.max_new_tokens < 1:
            raise ValueError(f"Sampling max_new_tokens is {self.max_new_tokens}; expected 1 or more.")
        if "" in self.stop:
            raise ValueError(
                "Sampling stop holds an empty word, which would end every reply at once; leave it out."
            )


@dataclass(frozen=True)
class ServedVersion:
    """A version that the policy can answer with, and the fingerprint that proves which weights it holds."""

    version: str
    fingerprint: str

    @property
    def is_base(self) -> bool:
        """Whether this is the base model without any adapter."""
        return self.version == BASE_VERSION


@dataclass(frozen=True)
class ReplicaState:
    """One model server for an operator's eyes. `problem` says why it does not serve; `replies` are under way on it."""

    url: str
    serves: bool
    problem: str
    replies: int


class Busy(RuntimeError):
    """The line of waiting replies is full; the message says how long it is and what to do."""


class PolicyClosed(RuntimeError):
    """The policy has been closed and takes no further requests."""


class UnknownVersion(LookupError):
    """The version asked for is not loaded; the message names those that are."""


class PromptTooLong(ValueError):
    """The prompt leaves no room for a reply within the context; the message gives both sizes."""


class Stream(Protocol):
    """A reply on its way. Every property may be read from any thread at any time."""

    @property
    def text(self) -> str:
        """What has been said so far; whole characters only."""

    @property
    def done(self) -> bool:
        """Whether the reply has ended, for whatever reason."""

    @property
    def finish(self) -> Finish | None:
        """Why it ended; None while it is under way."""

    @property
    def error(self) -> str | None:
        """A sentence for the person when `finish` is ``error``, else None."""

    @property
    def waiting(self) -> int:
        """Place in line: how many replies stand before this one starts, itself included; 0 once it runs."""

    @property
    def served(self) -> ServedVersion:
        """The version that answers, fixed when the request was taken."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""

    @property
    def completion_tokens(self) -> int:
        """Tokens generated so far, the end-of-turn token included."""

    def cancel(self) -> None:
        """Ask for an end; what was said stays. A reply that has ended is left as it is."""

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the reply has ended or `timeout` seconds have passed; say whether it has ended."""

    def add_done_callback(self, callback: Callable[[Stream], None]) -> None:
        """Call `callback` with this stream once it has ended (at once if it has), on whichever thread ends it."""

    def __iter__(self) -> Iterator[str]:
        """The reply piece by piece from its beginning, blocking in between; ends where the reply ends."""

    def pieces(self) -> AsyncIterator[str]:
        """The same as iterating, without blocking the event loop or holding a thread."""


class Policy(Protocol):
    """What can answer. Every method may be called from any thread."""

    @property
    def context_tokens(self) -> int:
        """Most tokens that a prompt and its reply may take together."""

    @property
    def identity(self) -> str:
        """Short hash that names the base model, as written into manifests."""

    def start(
        self, messages: Sequence[Message], *, version: str, sampling: Sampling, owner: str | None = None
    ) -> Stream:
        """Begin a reply and return at once.

        `owner` is whoever asks; where replies wait in line, one owner's many do not push another's aside. None: nobody
        in particular.

        Raises `Busy` when the line is full, `UnknownVersion`, `PromptTooLong`, `PolicyClosed`, or `ValueError` for
        messages that the model's chat template cannot express.
        """

    def load(self, version: str, path: Path, manifest: Manifest) -> ServedVersion:
        """Load an adapter, prove that it computes what the trainer's did, and offer it. Idempotent; blocks.

        Raises `training.registry.AdapterRefused` with the reason, or `ConnectionError` when the engine is elsewhere
        and cannot be reached now (try again later); what was loaded before stays as it was.
        """

    def release(self, version: str) -> None:
        """Offer `version` no more; its memory is freed when its last reply has ended. Returns at once; idempotent."""

    def loaded(self) -> list[ServedVersion]:
        """The adapters on offer, in the order of loading; the base is not among them."""

    def base(self) -> ServedVersion:
        """The base model without an adapter."""

    def replica_states(self) -> list[ReplicaState]:
        """The servers that hold the model, as they stand now; empty for a policy that is its own server."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens that these messages take as a prompt."""

    def close(self) -> None:
        """End every reply with an error text, free the model and stop the threads. Idempotent."""
