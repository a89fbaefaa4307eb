"""The policy on this machine: one quantized base, LoRA adapters beside it, and an engine that answers many at once.

It joins the parts: messages become ids (`training.prompt`), versions become adapters that have proved themselves
(`training.fingerprint`), tokens become text (`studio.policy.text`). It decides nothing about which version is to be
served and when; `studio.serving` does.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from memory.schema import BASE_VERSION, Message
from studio.policy.adapters import Adapters, AdapterWeights, read_adapter
from studio.policy.admission import Limits
from studio.policy.batch import Row
from studio.policy.cache import slot_bytes
from studio.policy.chat_model import ChatPolicy
from studio.policy.engine import Engine
from studio.policy.interface import PolicyClosed, PromptTooLong, Sampling, ServedVersion
from studio.policy.packed import threads_for
from studio.policy.reply import ReplySink
from studio.policy.sampling import Drawing
from studio.policy.stream import ReplyStream
from studio.policy.text import ReplyText
from studio.policy.versions import Versions
from training.base import BaseModel
from training.fingerprint import FingerprintMismatch, canary_steps, check, digest, tolerance_for
from training.prompt import count_tokens, encode_prompt
from training.registry import AdapterRefused, Manifest

_LEAST_SLOTS = 128
"""Tokens under which a cache is of no use: not even one short question with its reply would fit."""


class LocalPolicy(ChatPolicy):
    """Answers with `base_model` and the adapters loaded into it. The model is this object's alone from here on.

    `cache_mib` is the most memory for keys and values of replies under way (twice that for a moment while it grows).
    `new_seed` gives the seed of a reply that asks for none. `threads` are CPU threads for the model, 0 for
    as many as suit its size.
    """

    base_model: Any = Field(repr=False)
    """A `training.base.BaseModel`; pydantic cannot look into its libraries' types."""
    max_rows: int = Field(16, ge=1)
    max_waiting: int = Field(64, ge=0)
    prefill_tokens: int = Field(256, ge=1)
    cache_mib: int = Field(4096, ge=1)
    threads: int = Field(0, ge=0)
    new_seed: Callable[[], int] = lambda: secrets.randbits(63)

    _engine: Engine = PrivateAttr()
    _adapters: Adapters = PrivateAttr()
    _base: BaseModel = PrivateAttr()
    _loading: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _versions: Versions = PrivateAttr()
    _ends: frozenset[int] = PrivateAttr()
    _base_logprobs: list[float] | None = PrivateAttr(default=None)
    _context_tokens: int = PrivateAttr()
    _slot_bytes: int = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Start the engine's thread."""
        super().model_post_init(context)
        self._base = self.base_model
        model: Any = self._base.model
        self._slot_bytes = slot_bytes(model)
        slots = self._slots()
        self._context_tokens = min(self._base.context_tokens, slots)
        self._adapters = Adapters(model)
        self._versions = Versions(self.base(), drop=self._drop)
        self._ends = self._base.ends
        self._engine = Engine(
            self._adapters,
            layer_count=model.config.get_text_config().num_hidden_layers,
            device=self._base.device,
            limits=Limits(
                rows=self.max_rows,
                waiting=self.max_waiting,
                slots=slots,
                prefill_tokens=self.prefill_tokens,
            ),
            threads=self.threads or (threads_for(model) if self._base.device.type == "cpu" else 0),
        )

    @property
    def _llm_type(self) -> str:
        return "thumbprint-local"

    @property
    def model_name(self) -> str:
        return self._base.name

    @property
    def context_tokens(self) -> int:
        """The model's context, or as much of it as the cache can hold."""
        return self._context_tokens

    @property
    def identity(self) -> str:
        return self._base.identity

    @property
    def cached_mib(self) -> float:
        """Memory that keys and values of replies under way hold at the moment, in MiB."""
        return self._engine.slots * self._slot_bytes / 2**20

    def base(self) -> ServedVersion:
        return ServedVersion(BASE_VERSION, self.identity[:8])

    def loaded(self) -> list[ServedVersion]:
        return self._versions.all()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return count_tokens(self._base.tokenizer, messages)

    def start(
        self, messages: Sequence[Message], *, version: str, sampling: Sampling, owner: str | None = None
    ) -> ReplyStream:
        prompt = encode_prompt(self._base.tokenizer, messages)
        room = self.context_tokens - len(prompt)
        if room < 1:
            raise PromptTooLong(
                f"The conversation takes {len(prompt)} tokens, and the context is {self.context_tokens}. "
                "Shorten it, or begin a new one."
            )
        used = self._versions.begin(version)
        try:
            stream = ReplyStream(used.served, prompt_tokens=len(prompt), on_cancel=self._engine.wake)
            text = ReplyText(self._base.tokenizer, stop=sampling.stop)
            most = min(room, sampling.max_new_tokens)
            seed = sampling.seed if sampling.seed is not None else self.new_seed()
            self._engine.submit(
                Row(
                    prompt=prompt,
                    adapter=used.name,
                    drawing=Drawing.seeded(sampling.temperature, sampling.top_p, seed=seed),
                    most_tokens=most,
                    sink=ReplySink(stream, text, ends=self._ends, most_tokens=most),
                    owner=owner,
                )
            )
        except BaseException:  # whatever it was, the version must not count as in use
            self._versions.end(used)
            raise
        stream.add_done_callback(lambda _: self._versions.end(used))
        return stream

    def load(self, version: str, path: Path, manifest: Manifest) -> ServedVersion:
        with self._loading:
            if (found := self._versions.find(version)) is not None:
                return found
            self._check_manifest(version, manifest)
            weights = read_adapter(path, device=self._base.device)
            try:
                name = self._engine.run(self._prove(weights, manifest, version)).result()
            except CancelledError as error:
                raise PolicyClosed("The policy was closed while an adapter was loading.") from error
            return self._versions.offer(ServedVersion(version, manifest.fingerprint), name)

    def release(self, version: str) -> None:
        self._versions.release(version)

    def close(self) -> None:
        self._engine.close()

    def _slots(self) -> int:
        """How many tokens the cache may hold, over all rows: as many as are of use, within `cache_mib`."""
        held = self.cache_mib * 2**20 // self._slot_bytes
        if held < min(_LEAST_SLOTS, self._base.context_tokens):
            least = -(-_LEAST_SLOTS * self._slot_bytes // 2**20)
            raise ValueError(
                f"A cache of {self.cache_mib} MiB holds {held} tokens of {self.model_name}, and a conversation needs "
                f"{_LEAST_SLOTS} at least. Set THUMBPRINT_CACHE_MIB to {least} or more."
            )
        return min(held, self.max_rows * self._base.context_tokens)

    def _check_manifest(self, version: str, manifest: Manifest) -> None:
        if manifest.base_identity != self.identity or manifest.quantization != self._base.quantization:
            raise AdapterRefused(
                f"Adapter {version} was trained on {manifest.base_model!r} ({manifest.base_identity}, "
                f"{manifest.quantization}), but this studio serves {self.model_name!r} ({self.identity}, "
                f"{self._base.quantization}). Set THUMBPRINT_MODEL and THUMBPRINT_QUANTIZATION, or retrain."
            )
        if digest(manifest.canary_logprobs) != manifest.fingerprint:
            raise AdapterRefused(
                f"Adapter {version}: its fingerprint {manifest.fingerprint!r} is not that of its published "
                "log-probabilities; the manifest was put together wrongly. Train it again."
            )

    def _prove(self, weights: AdapterWeights, manifest: Manifest, version: str) -> Generator[None, None, str]:
        """On the owner's thread: put the adapter in and compare what it computes with what was published. Every canary
        is a slice of its own, so that replies go on in between."""
        base = yield from self._base_canaries()
        name = self._adapters.put_in(weights)
        try:
            yield
            actual = yield from self._canaries(name)
            check(manifest.canary_logprobs, actual, base=base, tolerance=tolerance_for(self._base.model))
        except FingerprintMismatch as error:
            self._adapters.take_out(name)
            raise AdapterRefused(f"Adapter {version} is not served: {error}") from error
        except BaseException:
            self._adapters.take_out(name)
            raise
        return name

    def _base_canaries(self) -> Generator[None, None, list[float]]:
        if self._base_logprobs is None:
            self._base_logprobs = yield from self._canaries(None)
        return self._base_logprobs

    def _canaries(self, name: str | None) -> Generator[None, None, list[float]]:
        values = []
        for value in canary_steps(
            lambda ids: self._adapters.logits(ids, adapter=name),
            self._base.tokenizer,
            device=self._base.device,
        ):
            values.append(value)
            yield
        return values

    def _drop(self, name: str) -> None:
        with suppress(PolicyClosed):  # then the model goes with the policy
            self._engine.run(self._take_out(name))

    def _take_out(self, name: str) -> Generator[None, None, None]:
        yield  # a job of its own, however short: it must run on the owner's thread
        self._adapters.take_out(name)
