"""The policy whose model stands elsewhere: one or several vLLM servers, with adapters loaded into them at run time.

`VllmPolicy` is a LangChain chat model like the others and sends token ids, so that text stays text
(`studio.policy.vllm_server` says why). Who wants vLLM's own chat endpoint, for tools or structured output, gets
langchain-openai's `ChatOpenAI` on a version from `chat_openai`: there the server applies the template, and a person
who types a control token is obeyed. An adapter is on offer once every living server holds it and has proven it.

It joins the parts and keeps the table of versions. It knows no HTTP, no health and no model weights.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr, SecretStr

from memory.schema import BASE_VERSION, Message
from studio.policy.chat_model import ChatPolicy
from studio.policy.interface import PolicyClosed, PromptTooLong, ReplicaState, Sampling, ServedVersion
from studio.policy.loop_thread import LoopThread
from studio.policy.replicas import NoReplica, Replicas
from studio.policy.reply import ReplySink
from studio.policy.stream import ReplyStream
from studio.policy.text import ReplyText
from studio.policy.versions import Versions
from studio.policy.vllm_base import KnownBase
from studio.policy.vllm_dispatch import Dispatch, Reply
from studio.policy.vllm_null import null_adapter
from studio.policy.vllm_proof import Adapter, check_manifest, seen_by_servers
from studio.policy.vllm_server import SILENCE_SECONDS, Drawing, Server
from training.prompt import encode_prompt
from training.registry import Manifest

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

logger = logging.getLogger(__name__)


class VllmPolicy(ChatPolicy):
    """Answers through the servers at `urls`, all started with `known_base`. Making one waits for the first of them.

    Raises `training.model_files.ModelUnavailable` when none can be used within `start_seconds`.
    """

    known_base: Any
    """A `studio.policy.vllm_base.KnownBase`; pydantic cannot look into its libraries' types."""
    urls: list[str]
    """Addresses without a path, such as ``http://127.0.0.1:8000``."""
    api_key: SecretStr = SecretStr("")
    shelf: Path
    """The registry's folder."""
    adapters_dir: Path | None = None
    """Where the servers see that folder, if elsewhere."""
    max_rows: int = Field(16, ge=1)
    """Most replies under way on one server."""
    max_waiting: int = Field(64, ge=0)
    tolerance: float = Field(2.0, gt=0.0)
    health_seconds: float = Field(2.0, gt=0.0)
    start_seconds: float = Field(0.0, ge=0.0)
    silence_seconds: float = Field(SILENCE_SECONDS, gt=0.0)
    new_seed: Callable[[], int] = lambda: secrets.randbits(63)

    _base: KnownBase = PrivateAttr()
    _loop: LoopThread = PrivateAttr()
    _line: Dispatch = PrivateAttr()
    _replicas: Replicas = PrivateAttr()
    _loading: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _closing: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _versions: Versions = PrivateAttr()
    _closed: bool = PrivateAttr(default=False)

    def model_post_init(self, context: Any, /) -> None:
        """Find the servers."""
        super().model_post_init(context)
        if not self.urls:
            raise ValueError(
                "There are no model servers; set THUMBPRINT_VLLM_URLS, such as http://127.0.0.1:8000."
            )
        self._base = self.known_base
        self._versions = Versions(self.base(), drop=self._drop)
        self._line = Dispatch(rows=self.max_rows, waiting=self.max_waiting)
        key = self.api_key.get_secret_value()
        null = null_adapter(self._base.folder, shelf=self.shelf, identity=self._base.identity)
        self._replicas = self._line.replicas = Replicas(
            [Server(url, api_key=key, silence=self.silence_seconds) for url in self.urls],
            self._base,
            null=seen_by_servers(null, self.adapters_dir) if null is not None else None,
            tolerance=self.tolerance,
            health_seconds=self.health_seconds,
            on_change=self._line.dispatch,
        )
        self._loop = LoopThread("vllm")
        try:
            self._loop.run(self._replicas.open(wait_seconds=self.start_seconds)).result()
        except BaseException:  # whatever it was, the thread must not outlive the attempt
            self.close()
            raise

    @property
    def _llm_type(self) -> str:
        return "thumbprint-vllm"

    @property
    def model_name(self) -> str:
        return self._base.name

    @property
    def context_tokens(self) -> int:
        return self._base.context_tokens

    @property
    def identity(self) -> str:
        return self._base.identity

    def base(self) -> ServedVersion:
        return ServedVersion(BASE_VERSION, self.identity[:8])

    def loaded(self) -> list[ServedVersion]:
        return self._versions.all()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(encode_prompt(self._base.tokenizer, messages))

    def replica_states(self) -> list[ReplicaState]:
        return [
            ReplicaState(replica.server.url, replica.alive, replica.problem, len(replica.replies))
            for replica in self._replicas.all
        ]

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
            reply = self._reply(prompt, used.served, sampling, most_tokens=min(room, sampling.max_new_tokens))
            reply.owner = owner
            self._line.join(reply)
        except BaseException:  # whatever it was, the version must not count as in use
            self._versions.end(used)
            raise
        reply.stream.add_done_callback(lambda _: self._versions.end(used))
        self._loop.post(self._line.dispatch)
        return reply.stream

    def load(self, version: str, path: Path, manifest: Manifest) -> ServedVersion:
        """See `Policy.load`. Raises `NoReplica` as well, when no server is there to hold it: try again later."""
        with self._loading:
            if (found := self._versions.find(version)) is not None:
                return found
            check_manifest(version, manifest, self._base)
            adapter = Adapter(version, seen_by_servers(path, self.adapters_dir), manifest)
            try:
                self._loop.run(self._replicas.place(adapter)).result()
            except CancelledError as error:
                raise PolicyClosed("The policy was closed while an adapter was loading.") from error
            return self._versions.offer(ServedVersion(version, manifest.fingerprint), version)

    def release(self, version: str) -> None:
        self._versions.release(version)

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            try:
                self._loop.run(self._close()).result()
            finally:
                self._loop.stop()

    def chat_openai(self, version: str = BASE_VERSION, **fields: Any) -> ChatOpenAI:
        """langchain-openai's chat model on one living server, answering with `version` as long as it is loaded.

        `fields` are `ChatOpenAI`'s own. It is outside the line, the receipts and the protection against typed
        control tokens. Raises `UnknownVersion`, `NoReplica`.
        """
        from langchain_openai import ChatOpenAI

        self._versions.end(self._versions.begin(version))
        replica = min(self._replicas.living(), key=lambda one: len(one.replies), default=None)
        if replica is None:
            raise NoReplica(f"No model server answers. {self._replicas.problems()}")
        return ChatOpenAI(
            base_url=f"{replica.server.url}/v1",
            api_key=SecretStr(self.api_key.get_secret_value() or "none"),
            model=replica.model_of(version),
            **{"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens, **fields},
        )

    async def _close(self) -> None:
        await self._line.close()
        await self._replicas.close()

    def _reply(
        self, prompt: list[int], served: ServedVersion, sampling: Sampling, *, most_tokens: int
    ) -> Reply:
        stream = ReplyStream(
            served,
            prompt_tokens=len(prompt),
            on_cancel=lambda: self._loop.post(lambda: self._line.cancel(reply)),
        )
        text = ReplyText(self._base.tokenizer, stop=sampling.stop)
        drawing = Drawing(
            prompt=prompt,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed if sampling.seed is not None else self.new_seed(),
            most_tokens=most_tokens,
            ends=self._base.ends,
        )
        sink = ReplySink(stream, text, ends=self._base.ends, most_tokens=most_tokens)
        reply = Reply(stream, sink, served.version, drawing)
        return reply

    def _drop(self, name: str) -> None:
        self._loop.run(self._replicas.drop(name)).add_done_callback(_log_failure)


def _log_failure(dropping: Any) -> None:
    if not dropping.cancelled() and (error := dropping.exception()) is not None:
        logger.error("An adapter could not be dropped.", exc_info=error)
