"""What plain transformers does with the same requests: the columns that the engine is measured against.

One request at a time through ``generate``, all in one static left-padded batch, and transformers' own continuous
batching. Every request gets exactly the same number of greedy tokens. It knows no engine and no adapter; it works on a
model of its own, since the engine lays a model's weights out anew.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training.base import BaseModel, find_model
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Taken:
    """`tokens` made in `seconds`; `firsts` the seconds to each request's first token, where they are known.

    `cpu` are the seconds that the process ran, over all its threads: with one thread for the model they are what
    `seconds` would have been on an idle machine, but for what others do to its caches.
    """

    tokens: int
    seconds: float
    cpu: float
    firsts: tuple[float, ...] = ()


def one_at_a_time(model: Any, prompts: Sequence[list[int]], *, tokens: int, most: int = 4) -> Taken:
    """The first `most` of `prompts`, one after the other; more of them only take longer."""
    begun, cpu = time.perf_counter(), time.process_time()
    for prompt in prompts[:most]:
        _generate(model, [prompt], tokens)
    return Taken(len(prompts[:most]) * tokens, time.perf_counter() - begun, time.process_time() - cpu)


def static_batch(model: Any, prompts: Sequence[list[int]], *, tokens: int) -> Taken:
    """All of `prompts` at once, each as long as the longest."""
    begun, cpu = time.perf_counter(), time.process_time()
    _generate(model, prompts, tokens)
    return Taken(len(prompts) * tokens, time.perf_counter() - begun, time.process_time() - cpu)


def continuous(model: Any, prompts: Sequence[list[int]], *, tokens: int) -> Taken:
    """All of `prompts` through ``generate_batch``, whose setting up and warming up are not counted.

    Its cache is kept as small as these requests allow: the size that it chooses by itself fills the memory, and it then
    took a second for each token.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    page = 64
    blocks = sum(-(-(len(prompt) + tokens) // page) + 1 for prompt in prompts)
    batching = ContinuousBatchingConfig(
        page_size=page, num_blocks=blocks, max_batch_tokens=256, max_requests_per_batch=len(prompts)
    )
    options = {"generation_config": config, "continuous_batching_config": batching}
    try:
        model.generate_batch(inputs=[prompts[0]], persistent_manager=True, **options)
        begun, cpu = time.perf_counter(), time.process_time()
        answers = model.generate_batch(
            inputs=list(prompts), persistent_manager=True, record_timestamps=True, **options
        )
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    finally:
        model.destroy_cached_continuous_batching_manager()
    firsts = tuple(answer.timestamps[0] - begun for answer in answers.values() if answer.timestamps)
    return Taken(sum(len(answer.generated_tokens) for answer in answers.values()), seconds, cpu, firsts)


def quantized_as_stored(base: BaseModel) -> nn.Module:
    """The same model with bitsandbytes' own 4-bit layers, which unpack their weights at every product."""
    from transformers import AutoModelForCausalLM

    from training.quantization import quantization_config

    folder, _ = find_model(TrainingSettings().model)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=base.model.dtype,
        quantization_config=quantization_config("nf4", dtype=base.model.dtype),
        device_map={"": base.device},
        local_files_only=True,
    )
    return model.eval()


def _generate(model: Any, prompts: Sequence[list[int]], tokens: int) -> None:
    width = max(map(len, prompts))
    pads = [width - len(prompt) for prompt in prompts]
    ids = [[0] * pad + list(prompt) for pad, prompt in zip(pads, prompts, strict=True)]
    mask = [[0] * pad + [1] * (width - pad) for pad in pads]
    model.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        do_sample=False,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        pad_token_id=0,
    )
