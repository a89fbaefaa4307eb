"""A tiny random Llama with a byte-level tokenizer and a ChatML template, for tests that need real parts but no meaning.

Everything is built from a seed in under a second; nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CORPUS = (
    "What is a good way to boil an egg? Put it in cold water and wait ten minutes.",
    "The system user and the assistant talk about tea, trains and the weather in May.",
    "héllo wörld, naïve café, 你好世界, Привет, emoji 😀👩‍👧🇫🇷 and so on; numbers 1 2 3.",
)


def tiny_tokenizer(
    *, template: str | None = CHATML, specials: tuple[str, ...] = SPECIALS, merges: int = 120
) -> Any:
    """A byte-level BPE tokenizer that can write any text, with `specials` as special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(specials) + merges,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=specials[-1],
        pad_token=specials[0],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(tokenizer: Any, *, seed: int = 0, layers: int = 2, width: int = 32, **config: Any) -> Any:
    """A random Llama in eval mode, fp32, with logits far enough apart that greedy choices are stable."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # on matrices this small more threads only wait for each other
    torch.manual_seed(seed)
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.5,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **config})).eval()


def save_tiny_base(folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny base model with its tokenizer into `folder`, as `training.base.load_base` reads them."""
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_adapter(folder: Path, model: Any, *, seed: int, scale: float = 0.5, rank: int = 4) -> Path:
    """Write a random LoRA adapter for a copy of `model` into `folder`; `model` itself stays as it is."""
    from copy import deepcopy

    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(deepcopy(model), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=scale * parameter.shape[1] ** -0.5)
    adapted.save_pretrained(str(folder))
    return folder
