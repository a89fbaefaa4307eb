"""Proof of serve over HTTP: that a server holds the base it should, and that an adapter in it computes what it should.

The canaries of `training.fingerprint` go to the server as token ids, and their log-probabilities come back. How far
they may lie from the published ones depends on the arithmetic, and the base tells: the studio knows what the
trainer's base computed. Measured with models/mini, vLLM 0.32 on a CPU, the largest difference from the trainer's fp32
over the base and six adapters: fp32 5e-5 nats; bf16 0.73 (and transformers' own bf16 0.92); the original weights
against the 4-bit ones 11. So a server whose base agrees within `EXACT` is held to that, any other to `tolerance`;
beyond it the base is another one.

It knows no pool, no version table and no reply.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.policy.vllm_base import KnownBase
from studio.policy.vllm_server import Facts, Server, ServerGone, ServerRefused, ServerSilent
from training.fingerprint import CANARIES, FingerprintMismatch, check, digest, distance
from training.prompt import encode_text
from training.registry import AdapterRefused, Manifest

EXACT = 1e-3
"""Nats within which two fp32 computations agree."""


class WrongBase(RuntimeError):
    """The server holds another base than the studio's, or one that reads text otherwise."""


@dataclass(frozen=True)
class Adapter:
    """An adapter to place: its version, its folder as the servers see it, and what was published about it."""

    version: str
    path: str
    manifest: Manifest


async def examine(server: Server, known: KnownBase) -> tuple[Facts, list[float]]:
    """What the server says of itself, and what its base computes.

    Raises `WrongBase` when it was started with another model, reads the canaries as other tokens, or has a context
    too short, and what `Server` raises.
    """
    facts = await server.facts()
    if not known.is_served_as(facts.root):
        raise WrongBase(
            f"The model server {server.url} serves {facts.root!r}, but this studio's model is {known.name!r}. Start "
            "vLLM with that model, or set THUMBPRINT_MODEL."
        )
    if facts.context_tokens < known.context_tokens:
        raise WrongBase(
            f"The model server {server.url} takes {facts.context_tokens} tokens, but this studio's context is "
            f"{known.context_tokens}. Start vLLM with --max-model-len {known.context_tokens}, or set "
            f"THUMBPRINT_CONTEXT_TOKENS={facts.context_tokens}."
        )
    for _prompt, continuation in CANARIES:
        if await server.tokenize(continuation) != encode_text(known.tokenizer, continuation):
            raise WrongBase(
                f"The model server {server.url} makes other tokens of the same text than {known.name!r} does: its "
                "tokenizer is another one. Start vLLM with the same model folder."
            )
    return facts, await canaries(server, facts.model, known)


async def canaries(server: Server, model: str, known: KnownBase) -> list[float]:
    """The numbers of `training.fingerprint.canary_logprobs`, computed by the server under `model`, one at a time."""
    values, salt = [], secrets.token_hex(8)
    for prompt, continuation in CANARIES:
        before = encode_text(known.tokenizer, prompt)
        ids = before + encode_text(known.tokenizer, continuation)
        values.append(await server.logprob(model, ids, start=len(before), salt=salt))
    return values


def check_manifest(version: str, manifest: Manifest, known: KnownBase) -> None:
    """Raises `AdapterRefused` for an adapter of another base, or one whose fingerprint is not that of its numbers."""
    if manifest.base_identity != known.identity or manifest.quantization != known.quantization:
        raise AdapterRefused(
            f"Adapter {version} was trained on {manifest.base_model!r} ({manifest.base_identity}, "
            f"{manifest.quantization}), but this studio's model is {known.name!r} ({known.identity}, "
            f"{known.quantization}). Set THUMBPRINT_MODEL and THUMBPRINT_QUANTIZATION, or retrain."
        )
    if digest(manifest.canary_logprobs) != manifest.fingerprint:
        raise AdapterRefused(
            f"Adapter {version}: its fingerprint {manifest.fingerprint!r} is not that of its published "
            "log-probabilities; the manifest was put together wrongly. Train it again."
        )


async def place(
    server: Server, adapter: Adapter, *, name: str, base: list[float], known: KnownBase, tolerance: float
) -> None:
    """Load `adapter` as `name` and prove it; when that fails it is taken out again.

    `base` is what the server's base computes. Raises `AdapterRefused`, `ServerGone`, `ServerSilent`.
    """
    allowed = _allowed(server, adapter, base=base, tolerance=tolerance)
    try:
        async with _loaded(server, name, adapter.path):
            actual = await canaries(server, name, known)
            check(adapter.manifest.canary_logprobs, actual, base=base, tolerance=allowed)
    except FingerprintMismatch as error:
        raise AdapterRefused(f"Adapter {adapter.version} is not served: on {server.url}, {error}") from error
    except ServerRefused as error:
        raise AdapterRefused(
            f"Adapter {adapter.version} is not served: {server.url} cannot load it from {adapter.path} "
            f"({error}). {_way_out(error, rank=adapter.manifest.settings.get('lora_rank'))}"
        ) from error


async def place_null(
    server: Server, path: str, *, name: str, base: list[float], known: KnownBase, tolerance: float
) -> list[float]:
    """Load the adapter of zeros in `path` as `name`; return what the base computes through it, which is `base` again.

    Raises `WrongBase` when it is not, or the server takes no adapters, and what `Server` raises.
    """
    try:
        async with _loaded(server, name, path):
            actual = await canaries(server, name, known)
            if (off := distance(base, actual)) > tolerance:
                raise WrongBase(
                    f"The model server {server.url} computes something else under an adapter of zeros than without "
                    f"any (a canary is off by {off:.4g} nats). It cannot be trusted with adapters."
                )
            return actual
    except ServerRefused as error:
        raise WrongBase(
            f"The model server {server.url} cannot load an adapter from {path} ({error}). {_way_out(error, rank=1)}"
        ) from error


@asynccontextmanager
async def _loaded(server: Server, name: str, path: str) -> AsyncIterator[None]:
    """Load an adapter, and take it out again if what follows fails."""
    try:
        await server.load(name, path)
    except ServerRefused as error:
        if error.status >= 500:
            await server.facts()  # an engine that died while loading refused nothing
        raise
    try:
        yield
    except BaseException:
        with suppress(ServerGone, ServerSilent, ServerRefused):
            await server.unload(name)
        raise


def _allowed(server: Server, adapter: Adapter, *, base: list[float], tolerance: float) -> float:
    """How far this server's arithmetic may be off, in nats, by what its base computes."""
    published = adapter.manifest.base_canary_logprobs
    if len(published) != len(base):
        raise AdapterRefused(
            f"Adapter {adapter.version}: its manifest has {len(published)} canary log-probabilities of the base, this "
            f"release computes {len(base)}. Train it again."
        )
    off = distance(published, base)
    if off <= EXACT:
        return EXACT
    if off <= tolerance:
        return tolerance
    raise AdapterRefused(
        f"Adapter {adapter.version} is not served: the base in {server.url} does not compute what the base it was "
        f"trained on did (a canary is off by {off:.4g} nats, allowed {tolerance:g}). It was trained on "
        f"{adapter.manifest.base_model!r} with quantization {adapter.manifest.quantization}: serve that, as "
        "`python -m studio.policy.vllm_base` writes it, or train with THUMBPRINT_QUANTIZATION=none."
    )


def _way_out(error: ServerRefused, *, rank: Any) -> str:
    said = str(error)
    if error.status == 404 and "adapter" not in said.lower():
        return "Start vLLM with --enable-lora and the environment variable VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
    if "rank" in said:
        return f"Start vLLM with --max-lora-rank {rank or 'of the adapter or more'}."
    if error.status == 404:
        return "The servers must see the adapters' folder; set THUMBPRINT_VLLM_ADAPTERS_DIR to where it is there."
    return "vLLM's log has the details."


def seen_by_servers(path: Path, adapters_dir: Path | None) -> str:
    """The adapter folder `path` as the servers see it: in `adapters_dir` where they have the registry elsewhere."""
    return str(path.absolute() if adapters_dir is None else adapters_dir / path.name)
