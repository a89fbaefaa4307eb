"""What the mini model is made of: a fresh one of a given shape, its plain weights, and how it is written to a folder.

Trains nothing, measures nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.mini.tokenizer import CONTEXT, END, PAD

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from training.mini.recipe import Recipe


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama with tied embeddings; the initial weights follow from the seed."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    end, pad = tokenizer.convert_tokens_to_ids([END, PAD])
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=end,
            pad_token_id=pad,
            initializer_range=0.02,
        )
    )
    model.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=pad, do_sample=True, temperature=0.8, top_p=0.95, max_new_tokens=200
    )
    return model


def full_precision_state(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """The weights under their plain names, also while quantization is felt."""
    return {
        name.replace("parametrizations.", "").replace(".original", ""): value.detach().clone()
        for name, value in model.state_dict().items()
    }


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights (bf16, the tied output head left out), configuration and tokenizer; each file is replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.to(torch.bfloat16) for name, value in full_precision_state(model).items()}
    del state["lm_head.weight"]
    model.config.dtype = torch.bfloat16
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        model.save_pretrained(scratch, state_dict=state)
        tokenizer.save_pretrained(scratch)
        for path in sorted(Path(scratch).iterdir()):
            path.chmod(0o644)
            path.replace(folder / path.name)
