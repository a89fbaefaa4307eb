"""Column (d) of `benchmarks.serving`: the same requests sent to a real vLLM server on this machine's CPU.

The server holds the base with its 4-bit weights unpacked, in fp32: the same numbers as the engine's. It computes on
one core; sending and reading happen in this process, on the other. Starting and warming up are not counted.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import openai

from benchmarks.generating import Taken
from benchmarks.vllm_process import VllmProcess, missing
from studio.policy.vllm_base import export
from training.settings import TrainingSettings

Answer = Callable[..., Taken]


@contextmanager
def vllm_column(*, rows: int) -> Iterator[Answer]:
    """Start a server for `rows` replies at once, and end it. Exits with what to do where there is no vLLM."""
    if reason := missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="thumbprint-vllm-") as folder:
        model = export(TrainingSettings(), Path(folder))
        server = VllmProcess(model, Path(folder) / "vllm.log", rows=rows)
        try:
            server.start().wait()

            def answer(prompts: Sequence[list[int]], *, tokens: int) -> Taken:
                return asyncio.run(_answer(server, str(model), prompts, tokens=tokens))

            yield answer
        finally:
            server.kill()


async def _answer(server: VllmProcess, model: str, prompts: Sequence[list[int]], *, tokens: int) -> Taken:
    """All of `prompts` at once. Raises `RuntimeError` when a reply has not exactly `tokens` tokens."""
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        begun, cpu, own = time.perf_counter(), server.cpu_seconds(), time.process_time()

        async def one(prompt: list[int]) -> tuple[float, int]:
            stream = await client.completions.create(
                model=model,
                prompt=prompt,
                stream=True,
                stream_options={"include_usage": True},
                max_tokens=tokens,
                temperature=0.0,
                extra_body={"ignore_eos": True},
            )
            first, counted = 0.0, 0
            async for chunk in stream:
                first = first or time.perf_counter() - begun
                counted = chunk.usage.completion_tokens if chunk.usage else counted
            return first, counted

        replies = await asyncio.gather(*(one(prompt) for prompt in prompts))
        seconds = time.perf_counter() - begun
        cpu = server.cpu_seconds() - cpu + time.process_time() - own
    if wrong := [counted for _, counted in replies if counted != tokens]:
        raise RuntimeError(f"vLLM made {wrong[0]} tokens where {tokens} were asked for.")
    return Taken(len(prompts) * tokens, seconds, cpu, tuple(first for first, _ in replies))
