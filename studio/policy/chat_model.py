"""The LangChain side of every policy: a `BaseChatModel` whose replies come from `Policy.start`.

``invoke``, ``stream``, ``batch`` and their async twins take `version`, `temperature`, `top_p`, `max_tokens`, `seed`
and `stop` per call; what is not given is the policy's default, and what a policy cannot do (tools, another model) is
refused. This module knows no engine: it turns LangChain's messages into ours and a stream's pieces into chunks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import (
    BaseChatModel,
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field

from memory.schema import BASE_VERSION, Message, Role
from studio.policy.interface import ReplicaState, Sampling, ServedVersion
from studio.policy.stream import ReplyStream
from training.prompt import PromptError
from training.registry import Manifest

_ROLES: dict[str, Role] = {"system": "system", "human": "user", "ai": "assistant"}
_SAMPLING = ("version", "temperature", "top_p", "max_tokens", "seed")
_DELIVERY = ("stream", "stream_usage")
"""Arguments of a call that say how a reply is delivered, which LangChain and this class see to anyway."""


class ReplyFailed(RuntimeError):
    """A reply ended in an error; the message is the one for the person."""


class ChatPolicy(BaseChatModel):
    """What `LocalPolicy` and `ScriptedPolicy` share: the defaults of a call, and LangChain's methods."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    default_version: str = BASE_VERSION
    """The version that answers when a call names none. The studio names one with every call."""
    temperature: float = Field(0.8, ge=0.0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(0.95, gt=0.0, le=1.0)
    """Nucleus sampling: the smallest set of tokens with this much probability."""
    max_tokens: int = Field(160, ge=1)
    """Most tokens in a reply."""
    seed: int | None = None
    """Seed of each reply; None draws a fresh one."""
    stop: list[str] | None = None
    """Words that end a reply and are cut off it."""

    @property
    @abstractmethod
    def context_tokens(self) -> int:
        """Most tokens that a prompt and its reply may take together."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Short hash that names the base model."""

    @property
    @abstractmethod
    def model_name(self) -> str:
        """What the base model is called."""

    @abstractmethod
    def start(
        self, messages: Sequence[Message], *, version: str, sampling: Sampling, owner: str | None = None
    ) -> ReplyStream:
        """Begin a reply; see `studio.policy.interface.Policy.start`."""

    @abstractmethod
    def load(self, version: str, path: Path, manifest: Manifest) -> ServedVersion:
        """Load and prove an adapter; see `Policy.load`."""

    @abstractmethod
    def release(self, version: str) -> None:
        """Offer a version no more; see `Policy.release`."""

    @abstractmethod
    def loaded(self) -> list[ServedVersion]:
        """The adapters on offer; see `Policy.loaded`."""

    @abstractmethod
    def base(self) -> ServedVersion:
        """The base model without an adapter."""

    @abstractmethod
    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens that these messages take as a prompt."""

    @abstractmethod
    def close(self) -> None:
        """End every reply and stop; see `Policy.close`."""

    def replica_states(self) -> list[ReplicaState]:
        """The servers that hold the model; see `Policy.replica_states`."""
        return []

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What tells this policy's replies from another's; LangChain's cache goes by it."""
        return {
            "model": self.model_name,
            "identity": self.identity,
            "default_version": self.default_version,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop if stop is not None else self.stop, **kwargs)
        params["ls_provider"] = "thumbprint"
        return params

    def get_num_tokens(self, text: str) -> int:
        """Tokens that `text` adds to a user message."""
        return self.count_tokens([Message("user", text)]) - self.count_tokens([Message("user", "")])

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Tokens of the prompt that `messages` make, for `langchain_core.messages.trim_messages` and the like.

        Where the chat template does not take them as they stand (trimming counts parts of a conversation), every
        message counts as a prompt of its own. Raises `ValueError` for tools and for what is not text.
        """
        if tools:
            raise ValueError("Tools were given, but this policy calls none; leave them out.")
        ours = [_to_message(message) for message in messages]
        if not ours:
            return 0
        try:
            return self.count_tokens(ours)
        except PromptError:
            return sum(self.count_tokens([Message("user", message.content)]) for message in ours)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop=stop, run_manager=run_manager, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(
            self._astream(messages, stop=stop, run_manager=run_manager, **kwargs)
        )

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        stream = self._start(messages, stop, kwargs)
        try:
            for piece in stream:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager:
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
            yield self._last_chunk(stream)
        finally:
            stream.cancel()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        stream = self._start(messages, stop, kwargs)
        try:
            async for piece in stream.pieces():
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager:
                    await run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
            yield self._last_chunk(stream)
        finally:
            stream.cancel()

    def _start(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> ReplyStream:
        given = {name: value for name, value in kwargs.items() if value is not None}
        _check_arguments(given, model_name=self.model_name)
        words = stop if stop is not None else self.stop
        sampling = Sampling(
            temperature=given.get("temperature", self.temperature),
            top_p=given.get("top_p", self.top_p),
            max_new_tokens=given.get("max_tokens", self.max_tokens),
            seed=given.get("seed", self.seed),
            stop=tuple(words or ()),
        )
        version = given.get("version", self.default_version)
        return self.start([_to_message(message) for message in messages], version=version, sampling=sampling)

    def _last_chunk(self, stream: ReplyStream) -> ChatGenerationChunk:
        if stream.finish == "error":
            raise ReplyFailed(stream.error or "The reply failed.")
        usage = UsageMetadata(
            input_tokens=stream.prompt_tokens,
            output_tokens=stream.completion_tokens,
            total_tokens=stream.prompt_tokens + stream.completion_tokens,
        )
        metadata = {
            "model_name": self.model_name,
            "model_provider": self._llm_type,
            "policy_version": stream.served.version,
            "fingerprint": stream.served.fingerprint,
            "finish_reason": stream.finish,
        }
        message = AIMessageChunk(
            content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last"
        )
        return ChatGenerationChunk(message=message)


def _check_arguments(arguments: dict[str, Any], *, model_name: str) -> None:
    """Raise `ValueError` for what a call asks and a policy does not do; silence would look like consent."""
    unknown = [
        name
        for name, value in arguments.items()
        if name not in (*_SAMPLING, *_DELIVERY) and not (name == "model" and value == model_name)
    ]
    if not unknown:
        return
    if "model" in unknown:
        raise ValueError(
            f"The call asks for model {arguments['model']!r}, but this policy holds {model_name!r} alone. Leave model "
            "out; an adapter is chosen with version."
        )
    raise ValueError(
        f"The call has {', '.join(unknown)}, which this policy cannot do; it takes {', '.join(_SAMPLING)} and stop. "
        "Leave it out."
    )


def _to_message(message: BaseMessage) -> Message:
    """Raises `ValueError` for tool messages and for content that is not text."""
    kind = message.type.removesuffix("MessageChunk").lower()
    role = getattr(message, "role", None) if kind == "chat" else _ROLES.get(kind)
    if role not in ("system", "user", "assistant"):
        raise ValueError(
            f"Message is of type {message.type!r}; this policy answers system, human and AI messages only."
        )
    content = message.content
    blocks = [content] if isinstance(content, str) else content
    texts = []
    for block in blocks:
        if isinstance(block, str):
            texts.append(block)
        elif block.get("type") == "text":
            texts.append(str(block["text"]))
        else:
            raise ValueError(
                f"Message holds a block of type {block.get('type')!r}; this policy reads text only. Remove the block."
            )
    return Message(role, "".join(texts))
