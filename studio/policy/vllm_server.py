"""One vLLM server as it answers over HTTP: what it serves, adapters in and out, log-probabilities, a reply's tokens.

Everything goes through the `openai` client that `langchain-openai` brings. Prompts are sent as token ids to
``/v1/completions``, never as messages to ``/v1/chat/completions``: where vLLM tokenizes text itself, it reads a
``<|im_end|>`` that a person typed as the control token, and ids leave nothing to read. Tokens come back as ids too, so
that text, stop words and ends are this studio's own, the same for every engine.

It knows one address. It knows no versions, no other server, no text and no reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

SILENCE_SECONDS = 120.0
"""Longest wait for the next token before a reply is given up."""
ANSWER_SECONDS = 30.0
"""Longest wait for an answer that is no reply."""
HEALTH_SECONDS = 10.0
"""Longest wait for an answer to the question whether all is well, and for any connection."""


class ServerGone(ConnectionError):
    """The server cannot be reached, broke off, or says that its engine died."""


class ServerSilent(TimeoutError):
    """The server took the request and said nothing for too long."""


class ServerRefused(RuntimeError):
    """The server answered with an error of its own. `status` is the HTTP status, 0 for an answer of another shape."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Facts:
    """What a server says of itself: its base's name and the path it came from, its context, its adapters' names."""

    model: str
    root: str
    context_tokens: int
    adapters: frozenset[str]


@dataclass(frozen=True)
class Drawing:
    """One reply to draw: the prompt's ids and how. `ends` are the tokens that end it."""

    prompt: Sequence[int]
    temperature: float
    top_p: float
    seed: int
    most_tokens: int
    ends: frozenset[int]


class Server:
    """The vLLM server at `url` (without ``/v1``). Its methods belong to one event loop.

    All raise `ServerGone`, `ServerSilent` and `ServerRefused`. What only reads is tried three times.
    """

    def __init__(self, url: str, *, api_key: str = "", silence: float = SILENCE_SECONDS) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._silence = silence
        self._client = openai.AsyncOpenAI(
            base_url=f"{self.url}/v1",
            api_key=api_key or "none",
            max_retries=0,
            timeout=openai.Timeout(ANSWER_SECONDS, connect=HEALTH_SECONDS),
        )

    async def facts(self) -> Facts:
        """What is served, after asking whether the engine lives."""
        soon = {"timeout": HEALTH_SECONDS}
        await self._reading(self._client.get, f"{self.url}/health", cast_to=str, options=soon)
        answer = await self._reading(self._client.get, "/models", cast_to=object, options=soon)
        with self._shape("/v1/models"):
            base = next(entry for entry in answer["data"] if not entry.get("parent"))
            adapters = frozenset(entry["id"] for entry in answer["data"] if entry.get("parent"))
            return Facts(base["id"], base["root"], int(base["max_model_len"]), adapters)

    async def tokenize(self, text: str) -> list[int]:
        """The server's own reading of `text`, without a beginning-of-text token."""
        body = {"prompt": text, "add_special_tokens": False}
        answer = await self._reading(self._client.post, f"{self.url}/tokenize", cast_to=object, body=body)
        with self._shape("/tokenize"):
            return [int(token) for token in answer["tokens"]]

    async def load(self, name: str, path: str) -> None:
        """Load the adapter in the folder `path`, which is the server's, as `name`."""
        await self._post("/load_lora_adapter", {"lora_name": name, "lora_path": path})

    async def unload(self, name: str) -> None:
        """Take the adapter `name` out. Replies that use it must have ended."""
        await self._post("/unload_lora_adapter", {"lora_name": name})

    async def logprob(self, model: str, ids: Sequence[int], *, start: int, salt: str) -> float:
        """The summed log-probability in nats of ``ids[start:]`` after ``ids[:start]`` under `model`.

        Every token is asked for as the only one allowed after those before it; vLLM reports log-probabilities as they
        were before such wishes and before temperature. Its own prompt log-probabilities would be one request
        instead of many, but a CPU server of vLLM 0.32 dies of them: under an adapter, with any other row in the
        batch. `salt` keeps what was computed for anybody else out of it.
        """
        places = range(start, len(ids))
        values = await asyncio.gather(*(self._logprob_at(model, ids, place, salt) for place in places))
        return sum(values)

    async def _logprob_at(self, model: str, ids: Sequence[int], place: int, salt: str) -> float:
        answer = await self._reading(
            self._client.completions.create,
            model=model,
            prompt=list(ids[:place]),
            max_tokens=1,
            temperature=0.0,
            logprobs=0,
            extra_body={"allowed_token_ids": [ids[place]], "return_token_ids": True, "cache_salt": salt},
        )
        with self._shape("/v1/completions"):
            choice = answer.choices[0]
            if self._tokens(choice) != [ids[place]]:
                raise ValueError(f"token {self._tokens(choice)} where {ids[place]} alone was allowed")
            return float(choice.logprobs.token_logprobs[0])

    async def generate(
        self, model: str, drawing: Drawing
    ) -> AsyncGenerator[tuple[list[int], str | None], None]:
        """The reply's tokens as they come, and with the last why it ended (``stop``, ``length``).

        Closing the iterator closes the connection, and vLLM then frees the row. What the model's own
        generation_config.json says about drawing is overruled: a reply is drawn as asked for.
        """
        with self._errors():
            stream = await self._client.completions.create(
                model=model,
                prompt=list(drawing.prompt),
                stream=True,
                max_tokens=drawing.most_tokens,
                temperature=drawing.temperature,
                top_p=drawing.top_p,
                seed=drawing.seed,
                frequency_penalty=0.0,
                presence_penalty=0.0,
                extra_body={
                    "top_k": 0,
                    "min_p": 0.0,
                    "repetition_penalty": 1.0,
                    "stop_token_ids": sorted(drawing.ends),
                    "return_token_ids": True,
                },
                timeout=openai.Timeout(self._silence, connect=HEALTH_SECONDS),
            )
            async with stream:
                ended = False
                async for chunk in stream:
                    for choice in chunk.choices:
                        tokens, ended = self._tokens(choice), choice.finish_reason is not None
                        yield tokens, choice.finish_reason
                if not ended:
                    raise ServerGone(f"The model server {self.url} broke off in the middle of a reply.")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _tokens(self, choice: Any) -> list[int]:
        tokens = (choice.model_extra or {}).get("token_ids")
        if tokens is None:
            raise ServerRefused(
                f"The model server {self.url} sends no token ids with its replies; it needs a vLLM that knows "
                "return_token_ids (0.32 does)."
            )
        return [int(token) for token in tokens]

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        with self._errors():
            await self._client.post(path, cast_to=str, body=body)

    async def _reading(self, call: Any, *words: Any, **named: Any) -> Any:
        """Make a call that changes nothing, again if the connection breaks."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(ServerGone),
            stop=stop_after_attempt(3),
            wait=wait_exponential(multiplier=0.05),
            reraise=True,
        ):
            with attempt, self._errors():
                return await call(*words, **named)
        raise AssertionError("tenacity either returns or raises")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the client's errors into ours."""
        try:
            yield
        except openai.APITimeoutError as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                raise ServerGone(f"The model server {self.url} cannot be reached: no connection.") from error
            raise ServerSilent(f"The model server {self.url} said nothing for too long.") from error
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            raise ServerGone(f"The model server {self.url} cannot be reached: {reason}") from error
        except openai.APIStatusError as error:
            if error.status_code in (502, 503, 504):
                raise ServerGone(
                    f"The model server {self.url} is not up (HTTP {error.status_code})."
                ) from error
            if error.status_code in (401, 403):
                raise ServerRefused(
                    f"The model server {self.url} wants another key than THUMBPRINT_VLLM_API_KEY.",
                    status=error.status_code,
                ) from error
            raise ServerRefused(_said(error), status=error.status_code) from error
        except openai.APIError as error:  # an error in the middle of a stream
            raise ServerGone(f"The model server {self.url} failed: {error.message}") from error

    @contextmanager
    def _shape(self, path: str) -> Iterator[None]:
        """Turn what reading an answer of another shape raises into a refusal."""
        try:
            yield
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
            raise ServerRefused(
                f"{self.url}{path} does not answer as vLLM does ({type(error).__name__}: {error}). Is it a vLLM "
                "server of version 0.32 or near it?"
            ) from error


def _said(error: openai.APIStatusError) -> str:
    """The server's own words, where it sent any."""
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body)
    return error.message
