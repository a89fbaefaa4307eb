"""Proof of serve: what an adapter computes on a few fixed texts, as numbers that trainer and server can compare.

A canary is a prompt with a fixed continuation; its number is the summed log-probability of the continuation in nats.
The trainer publishes the candidate's numbers and the base's, the server computes both again after loading. This module
knows neither registry nor engine, and it uses no chat template: some put today's date into the prompt.

Canaries go through the model one at a time and unpadded, so the numbers depend on the weights and the arithmetic only.
Measured with models/mini (nf4 on a CPU, fp32): no difference between one and two threads or between processes, 6e-6
nats when four canaries share a padded batch; in bf16 such a batch moves a canary by 0.1. A single AdamW step of rank 16
moves one by 2.4 nats at learning rate 5e-4 and by 0.1 at 2e-5, and a training has forty steps or more.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from training.prompt import encode_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

CANARIES: tuple[tuple[str, str], ...] = (
    (
        "user: How do I boil an egg?\nassistant:",
        " Put it in boiling water for eight minutes! Shall I say more?",
    ),
    (
        "user: Tell me about the moon.\nassistant:",
        " I think it is a rock. For example:\n- it orbits the Earth\n- it is grey",
    ),
    ("user: Thanks, that helped.\nassistant:", " You are welcome."),
    (
        "user: What should I read next?\nassistant:",
        " Sorry, I do not know. Perhaps ask a librarian, because they read a lot.",
    ),
)
"""Prompts and continuations on several axes of style, so that whatever was trained moves some of them."""

Forward = Callable[["torch.Tensor"], "torch.Tensor"]
"""Token ids of shape (1, length) to logits of shape (1, length, vocabulary), under one adapter."""


class FingerprintMismatch(ValueError):
    """What was loaded does not compute what was published, or computes nothing but the base."""


def canary_logprobs(model: Any, tokenizer: PreTrainedTokenizerBase, *, adapter: str | None) -> list[float]:
    """One number per canary for `model` under the LoRA adapter named `adapter`; None is the base alone.

    `model` is a plain model (then `adapter` must be None) or a `peft.PeftModel`, in any mode; its mode, its active
    adapter and the random state are left as they were. Raises `ValueError` for an adapter that is not there.
    """
    was_training = model.training
    model.eval()
    try:
        return list(canary_steps(_forward_under(model, adapter), tokenizer, device=model.device))
    finally:
        model.train(was_training)


def canary_steps(
    forward: Forward, tokenizer: PreTrainedTokenizerBase, *, device: torch.device
) -> Iterator[float]:
    """The numbers of `canary_logprobs` one at a time, for a caller that has other work in between."""
    import torch

    for prompt, continuation in CANARIES:
        prompt_ids = encode_text(tokenizer, prompt)
        continuation_ids = encode_text(tokenizer, continuation)
        ids = torch.tensor([prompt_ids + continuation_ids], device=device)
        with torch.inference_mode():
            logits = forward(ids)[0, len(prompt_ids) - 1 : -1].float()
            targets = ids[0, len(prompt_ids) :, None]
            value = logits.log_softmax(-1).gather(-1, targets).double().sum().item()
        yield value


def digest(logprobs: Sequence[float]) -> str:
    """8 hex digits of these very numbers. Take them of published numbers: recomputed ones differ in the last bits."""
    text = json.dumps([float(value) for value in logprobs])
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:8]


def tolerance_for(model: Any) -> float:
    """How far two computations of one canary may lie apart, in nats, at the precision of `model`.

    fp32: 1e-3, over a hundred times what was measured, for other CPUs' kernels. Half precision: 0.25, two and a half
    times what another batch did on one machine.
    """
    import torch

    return 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.25


def check(
    expected: Sequence[float], actual: Sequence[float], *, base: Sequence[float], tolerance: float
) -> None:
    """Compare what was published with what is computed here. Raises `FingerprintMismatch` unless all is well.

    `expected` are the manifest's numbers, `actual` those of the adapter as loaded, `base` those of the base as loaded.
    """
    if not len(expected) == len(actual) == len(base):
        raise FingerprintMismatch(
            f"The manifest has {len(expected)} canary log-probabilities, this release computes {len(actual)}; the "
            "adapter is from another release. Train it again."
        )
    if not all(math.isfinite(value) for value in (*expected, *actual)):
        raise FingerprintMismatch(
            f"The canary log-probabilities are not numbers: {_list(actual)}. Train it again."
        )
    if distance(actual, base) <= tolerance:
        raise FingerprintMismatch(
            f"The adapter has no effect: its canary log-probabilities {_list(actual)} are those of the base within "
            f"{tolerance:g} nats. Its weights are zero, or they did not reach the model."
        )
    if (off := distance(expected, actual)) > tolerance:
        raise FingerprintMismatch(
            f"The adapter does not compute what it was published with: a canary is off by {off:.4g} nats, allowed "
            f"{tolerance:g} (published {_list(expected)}, computed {_list(actual)}). Check that the base model and "
            "its quantization are those of the training."
        )


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest difference between two computations of the canaries, in nats."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def _forward_under(model: Any, adapter: str | None) -> Forward:
    """`model`'s forward pass with every row under `adapter`. PEFT takes the adapter per row, which changes no state."""
    if not hasattr(model, "peft_config"):
        if adapter is not None:
            raise ValueError(
                f"The model has no adapters, but {adapter!r} was asked for; load it with PEFT first."
            )
        return lambda ids: model(input_ids=ids, use_cache=False).logits
    if adapter is not None and adapter not in model.peft_config:
        known = ", ".join(model.peft_config)
        raise ValueError(f"The model has no adapter {adapter!r}; it has: {known}.")
    if adapter is not None and not model.has_active_enabled_adapter:
        raise ValueError(
            "The model's adapters are switched off, so PEFT would silently compute the base's numbers."
        )
    names = ["__base__" if adapter is None else adapter]
    return lambda ids: model(input_ids=ids, use_cache=False, adapter_names=names).logits


def _list(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"
