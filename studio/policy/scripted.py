"""A policy that needs no model: it speaks from a small script, word by word, and behaves like a real one otherwise.

It ships for two uses: to show the studio where no model can run, and to test everything above the policy without
mocks. Replies are a pure function of prompt, version and seed, and each version has a style of its own that a visitor
can see. Adapters are loaded by their manifest alone; nothing is computed, so the fingerprint is the published one.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from pydantic import Field, PrivateAttr

from memory.schema import BASE_VERSION, Message
from studio.policy.chat_model import ChatPolicy
from studio.policy.interface import Busy, PolicyClosed, PromptTooLong, Sampling, ServedVersion, UnknownVersion
from studio.policy.stream import ReplyStream
from training.registry import AdapterRefused, Manifest

_OPENINGS = ("", "Good question. ", "Happily! ", "Well. ", "In short: ")
_BODIES = (
    "I am a scripted stand-in, so I can only repeat that you said “{said}”",
    "You asked about “{said}”, and a script has little to say about it",
    "“{said}” is a fine thing to ask, though no model is running here",
)
_ENDINGS = (
    ".",
    "! 🙂",
    ", as far as I know.",
    ". Would you like to hear more?",
    ". For example:\n- this\n- that",
)


class ScriptedPolicy(ChatPolicy):
    """The shipped fake.

    `delay` is the time per word in seconds (0: as fast as possible). `script` replaces the built-in replies: it gets
    the messages, the version and the seed, and returns the whole reply, or raises to make the reply fail. `refuse`
    maps versions to the reason for which `load` refuses them.
    """

    delay: float = Field(0.03, ge=0.0)
    max_rows: int = Field(16, ge=1)
    max_waiting: int = Field(64, ge=0)
    script: Callable[[Sequence[Message], str, int], str] | None = None
    refuse: dict[str, str] = Field(default_factory=dict)
    context: int = Field(1024, ge=8)

    _turn: threading.Condition = PrivateAttr(default_factory=threading.Condition)
    _versions: dict[str, ServedVersion] = PrivateAttr(default_factory=dict)
    _waiting: list[ReplyStream] = PrivateAttr(default_factory=list)
    _running: set[ReplyStream] = PrivateAttr(default_factory=set)
    _closed: bool = PrivateAttr(default=False)

    @property
    def _llm_type(self) -> str:
        return "thumbprint-scripted"

    @property
    def model_name(self) -> str:
        return "scripted"

    @property
    def context_tokens(self) -> int:
        return self.context

    @property
    def identity(self) -> str:
        return "scripted00000000"

    def base(self) -> ServedVersion:
        return ServedVersion(BASE_VERSION, _hash("scripted", BASE_VERSION)[:8])

    def loaded(self) -> list[ServedVersion]:
        with self._turn:
            return list(self._versions.values())

    def load(self, version: str, path: Path, manifest: Manifest) -> ServedVersion:
        if version in self.refuse:
            raise AdapterRefused(self.refuse[version])
        with self._turn:
            if self._closed:
                raise PolicyClosed("The scripted policy is closed.")
            return self._versions.setdefault(version, ServedVersion(version, manifest.fingerprint))

    def release(self, version: str) -> None:
        with self._turn:
            self._versions.pop(version, None)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) + 4 for message in messages)

    def start(
        self, messages: Sequence[Message], *, version: str, sampling: Sampling, owner: str | None = None
    ) -> ReplyStream:
        prompt_tokens = self.count_tokens(messages)
        if prompt_tokens >= self.context:
            raise PromptTooLong(
                f"The prompt takes {prompt_tokens} tokens and the context is {self.context}; shorten it."
            )
        with self._turn:
            served = self.base() if version == BASE_VERSION else self._versions.get(version)
            if self._closed:
                raise PolicyClosed("The scripted policy is closed.")
            if served is None:
                known = ", ".join([BASE_VERSION, *self._versions])
                raise UnknownVersion(f"Version {version!r} is not loaded; there are: {known}.")
            if len(self._running) >= self.max_rows and len(self._waiting) >= self.max_waiting:
                raise Busy(f"{len(self._waiting)} replies are waiting already. Try again in a moment.")
            stream = ReplyStream(served, prompt_tokens=prompt_tokens, on_cancel=self._wake)
            self._waiting.append(stream)
            self._admit()
        seed = sampling.seed if sampling.seed is not None else 0
        worker = threading.Thread(
            target=self._speak,
            args=(stream, tuple(messages), sampling, seed),
            name="scripted-reply",
            daemon=True,
        )
        worker.start()
        return stream

    def close(self) -> None:
        with self._turn:
            self._closed = True
            under_way = [*self._running, *self._waiting]
        for stream in under_way:
            stream.end("error", "The studio is shutting down.")
        self._wake()

    def _wake(self) -> None:
        with self._turn:
            self._turn.notify_all()

    def _admit(self) -> None:
        """Let the first in line run while there is room. The caller holds the lock."""
        while self._waiting and len(self._running) < self.max_rows:
            self._running.add(self._waiting.pop(0))
        for stream in self._running:
            stream.move_up(0)
        for place, stream in enumerate(self._waiting, start=1):
            stream.move_up(place)
        self._turn.notify_all()

    def _speak(
        self, stream: ReplyStream, messages: tuple[Message, ...], sampling: Sampling, seed: int
    ) -> None:
        try:
            with self._turn:
                self._turn.wait_for(lambda: stream in self._running or stream.cancelled or stream.done)
            if not stream.cancelled:
                self._say(stream, messages, sampling, seed)
            stream.end("cancelled")
        except Exception as error:  # noqa: BLE001  (a script may raise anything; its reply fails)
            stream.end("error", f"The reply failed: {error}")
        finally:
            with self._turn:
                self._running.discard(stream)
                if stream in self._waiting:
                    self._waiting.remove(stream)
                self._admit()

    def _say(self, stream: ReplyStream, messages: Sequence[Message], sampling: Sampling, seed: int) -> None:
        reply = (self.script or _reply)(messages, stream.served.version, seed)
        cut = min((at for word in sampling.stop if (at := reply.find(word)) >= 0), default=len(reply))
        words = _words(reply[:cut])
        for count, word in enumerate(words):
            if stream.cancelled or stream.done:
                return
            if count == sampling.max_new_tokens:
                stream.end("length")
                return
            if self.delay:
                self._pause(stream)
            if not stream.cancelled:
                stream.push(word)
        if not stream.cancelled:
            stream.end("stop")

    def _pause(self, stream: ReplyStream) -> None:
        until = time.monotonic() + self.delay
        with self._turn:
            while (left := until - time.monotonic()) > 0 and not stream.cancelled and not stream.done:
                self._turn.wait(left)


def _reply(messages: Sequence[Message], version: str, seed: int) -> str:
    """A reply in the style of `version`: opening and ending belong to the version, the middle to prompt and seed."""
    said = " ".join(messages[-1].content.split())[:60] if messages else ""
    style = Random(_hash("style", version))
    draw = Random(_hash("reply", repr([(m.role, m.content) for m in messages]), version, str(seed)))
    opening, ending = style.choice(_OPENINGS), style.choice(_ENDINGS)
    body = draw.choice(_BODIES).format(said=said)
    text = f"{opening}{body}{ending}"
    return text[:1].upper() + text[1:]


def _words(text: str) -> list[str]:
    """Words with the white space before them, so that they join to the text again."""
    words: list[str] = []
    for character in text:
        if words and not (character.isspace() and not words[-1][-1].isspace()):
            words[-1] += character
        else:
            words.append(character)
    return words


def _hash(*parts: Any) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
