"""The model families of the field in miniature: the real architecture with random weights, a tokenizer of the family's
kind trained here, and a chat template of the family's shape, for tests that need no meaning and no network.

A template's shape is what matters to whoever builds prompts: which control tokens stand where, which roles there are,
whether texts are trimmed, what comes before everything, what a reply ends with. Every template here is written for
that, not for the instructions that the real ones may add.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

TEXTS = (
    "What is a good way to boil an egg? Put it in cold water and wait ten minutes.",
    "The system user and the assistant talk about tea, trains and the weather in May.",
    "héllo wörld, naïve café, 你好世界, Привет, emoji 😀 and so on; numbers 1 2 3.",
)

_CHATML = (
    "{%- for m in messages -%}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
_CHATML_WITH_A_SYSTEM_TEXT_OF_ITS_OWN = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{ '<|im_start|>system\nAnswer as a small assistant.<|im_end|>\n' }}"
    "{%- endif -%}" + _CHATML
)
# Thinking is on unless it is switched off; of earlier replies only what follows the thoughts is shown.
_CHATML_THAT_THINKS = (
    "{%- for m in messages -%}"
    "{%- set said = m['content'] -%}"
    "{%- if m['role'] == 'assistant' and '</think>' in said -%}"
    "{%- set said = said.split('</think>')[-1].lstrip('\n') -%}"
    "{%- endif -%}"
    "{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{%- if m['role'] == 'assistant' and loop.last -%}{{ '<think>\n\n</think>\n\n' }}{%- endif -%}"
    "{{ said + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{ '<think>\n\n</think>\n\n' }}{%- endif -%}"
    "{%- endif -%}"
)
_HEADERS = (
    "{{ bos_token }}"
    "{%- for m in messages -%}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}"
)
_TURNS = (
    "{%- for m in messages -%}"
    "{%- if (m['role'] == 'user') != (loop.index0 is even) -%}"
    "{{ raise_exception('Roles must alternate, the user first') }}"
    "{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' + m['content'] | trim "
    "+ '<end_of_turn>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
_TURNS_WITHOUT_SYSTEM = (
    "{{ bos_token }}"
    "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('There is no system role') }}{%- endif -%}"
    + _TURNS
)
# The system text opens the first user turn, put there by the template itself.
_TURNS_WITH_FOLDED_SYSTEM = (
    "{{ bos_token }}"
    "{%- set ns = namespace(opening='', rest=messages) -%}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set ns.opening = messages[0]['content'] + '\n\n' -%}{%- set ns.rest = messages[1:] -%}"
    "{%- endif -%}"
    "{%- for m in ns.rest -%}"
    "{%- if (m['role'] == 'user') != (loop.index0 is even) -%}"
    "{{ raise_exception('Roles must alternate, the user first') }}"
    "{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' }}"
    "{%- if loop.first -%}{{ ns.opening }}{%- endif -%}"
    "{{ m['content'] | trim + '<end_of_turn>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
# The system text stands before the last user message; nothing opens a reply but the end of the instruction.
_INSTRUCTIONS = (
    "{{ bos_token }}"
    "{%- set ns = namespace(system='', rest=messages) -%}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set ns.system = messages[0]['content'] + '\n\n' -%}{%- set ns.rest = messages[1:] -%}"
    "{%- endif -%}"
    "{%- for m in ns.rest -%}"
    "{%- if (m['role'] == 'user') != (loop.index0 is even) -%}"
    "{{ raise_exception('After the system message, user and assistant must take turns') }}"
    "{%- endif -%}"
    "{%- if m['role'] == 'user' -%}"
    "{{ '[INST] ' + (ns.system if loop.last else '') + m['content'] + '[/INST]' }}"
    "{%- else -%}{{ ' ' + m['content'] | trim + eos_token }}{%- endif -%}"
    "{%- endfor -%}"
)
_ROLES_AS_TOKENS = (
    "{%- for m in messages -%}"
    "{{ '<|' + m['role'] + '|>' + GAP + m['content'] + '<|end|>' + GAP }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' + GAP }}{%- endif -%}"
)
_ROLES_BETWEEN_TOKENS = (
    "{%- for m in messages -%}"
    "{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant<|im_sep|>' }}{%- endif -%}"
)


@dataclass(frozen=True)
class Family:
    """One family. `ends` are the tokens that its own settings let a reply end with, the template's first.

    `pieces` says which kind of tokenizer it has: ``bytes`` (byte-level BPE) or ``words`` (SentencePiece's way: spaces
    as ▁, bytes for what is unknown). `plain` are added tokens that do not count as special. With `vision`, the model
    has a part that reads images beside the text model that `config` describes.
    """

    architecture: str
    config: dict[str, Any]
    template: str
    specials: tuple[str, ...]
    ends: tuple[str, ...]
    bos: str | None = None
    pieces: str = "bytes"
    plain: tuple[str, ...] = ()
    vision: dict[str, Any] = field(default_factory=dict)

    @property
    def controls(self) -> tuple[str, ...]:
        """Every token that a person must not be able to write."""
        return (*self.specials, *(token for token in self.plain if not token.isspace()))


_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.4,
}
_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
_LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
}

FAMILIES: dict[str, Family] = {
    "qwen2": Family(
        "Qwen2",
        {"tie_word_embeddings": True},
        _CHATML_WITH_A_SYSTEM_TEXT_OF_ITS_OWN,
        _CHATML_TOKENS,
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "qwen3": Family(
        "Qwen3",
        {"head_dim": 16, "tie_word_embeddings": False},
        _CHATML_THAT_THINKS,
        _CHATML_TOKENS,
        ("<|im_end|>", "<|endoftext|>"),
        plain=("<think>", "</think>"),
    ),
    "llama3": Family(
        "Llama",
        {
            "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        _HEADERS,
        (*_LLAMA_TOKENS, "<|eom_id|>", "<|eot_id|>"),
        ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
        bos="<|begin_of_text|>",
    ),
    "gemma2": Family(
        "Gemma2",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 8,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 9.0,
            "num_hidden_layers": 4,
        },
        _TURNS_WITHOUT_SYSTEM,
        ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        ("<end_of_turn>", "<eos>"),
        bos="<bos>",
        pieces="words",
        plain=("\n", "\n\n"),
    ),
    "gemma3": Family(
        "Gemma3Text",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 8,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        },
        _TURNS_WITH_FOLDED_SYSTEM,
        ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        ("<end_of_turn>", "<eos>"),
        bos="<bos>",
        pieces="words",
        plain=("\n", "\n\n"),
    ),
    "gemma3-vision": Family(
        "Gemma3",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 8,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        },
        _TURNS_WITH_FOLDED_SYSTEM,
        ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        ("<end_of_turn>", "<eos>"),
        bos="<bos>",
        pieces="words",
        plain=("\n", "\n\n"),
        vision={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
    ),
    "mistral": Family(
        "Mistral",
        {"sliding_window": 8, "tie_word_embeddings": False},
        _INSTRUCTIONS,
        ("<unk>", "<s>", "[INST]", "[/INST]", "</s>"),
        ("</s>",),
        bos="<s>",
        pieces="words",
    ),
    "smollm2": Family(
        "Llama",
        {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 48, "tie_word_embeddings": True},
        _CHATML_WITH_A_SYSTEM_TEXT_OF_ITS_OWN,
        _CHATML_TOKENS,
        ("<|im_end|>",),
    ),
    "smollm3": Family(
        "SmolLM3",
        {"num_hidden_layers": 4, "no_rope_layer_interval": 2, "tie_word_embeddings": True},
        _CHATML_THAT_THINKS,
        _CHATML_TOKENS,
        ("<|im_end|>",),
        plain=("<think>", "</think>"),
    ),
    "phi3": Family(
        "Phi3",
        {"num_key_value_heads": 4, "sliding_window": 24, "tie_word_embeddings": False},
        _ROLES_AS_TOKENS.replace("GAP", "'\n'"),
        ("<unk>", "<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ("<|end|>", "<|endoftext|>"),
        pieces="words",
    ),
    "phi4-mini": Family(
        "Phi3",
        {
            "tie_word_embeddings": True,
            "partial_rotary_factor": 1.0,
            "rope_parameters": _LONG_ROPE,
            "original_max_position_embeddings": 256,
        },
        _ROLES_AS_TOKENS.replace("GAP", "''"),
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ("<|end|>", "<|endoftext|>"),
    ),
    "phi4": Family(
        "Phi3",
        {"tie_word_embeddings": False},
        _ROLES_BETWEEN_TOKENS,
        ("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        ("<|im_end|>",),
    ),
}


def family_tokenizer(family: Family) -> Any:
    """A tokenizer of the family's kind that can write any text."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    backend = _byte_level(family) if family.pieces == "bytes" else _word_pieces(family)
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.plain])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=family.bos,
        # As published: where the settings name several ends, the tokenizer's own is often the last of them.
        eos_token=family.ends[-1] if family.ends[-1] != "<|end_of_text|>" else "<|eot_id|>",
        pad_token=family.specials[0],
        unk_token="<unk>" if "<unk>" in family.specials else None,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = family.template
    return tokenizer


def save_family(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Write the family's tiny model and tokenizer into `folder`, with the generation settings that it comes with."""
    import transformers

    family = FAMILIES[name]
    tokenizer = family_tokenizer(family)
    ends = tokenizer.convert_tokens_to_ids(list(family.ends))
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": tokenizer.pad_token_id,
        **_SHAPE,
        **family.config,
    }
    if family.vision:
        fields = {
            "text_config": fields,
            "vision_config": family.vision,
            "mm_tokens_per_image": 4,
            # No text of a test holds it, so it may stand for the images that there are none of.
            "image_token_id": tokenizer.convert_tokens_to_ids("<unk>"),
            "eos_token_id": fields["eos_token_id"],
        }
    config = getattr(transformers, f"{family.architecture}Config")(**fields)
    torch.set_num_threads(1)  # on matrices this small more threads only wait for each other
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(std=0.2)  # biases begin as zeros, which would hide one that gets lost
            if "embed_tokens" in parameter_name and config.model_type.startswith("gemma"):
                parameter.mul_(0.1)  # scaled up by the model and tied: it would only repeat the last token
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_level(family: Family) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(family.specials) + 120,
        special_tokens=list(family.specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def _word_pieces(family: Family) -> Any:
    """Spaces become ▁, what the vocabulary lacks becomes bytes. The bytes are pieces of the vocabulary and no more."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=260, special_tokens=list(family.specials), show_progress=False, max_token_length=8
    )
    backend.train_from_iterator(TEXTS, trainer)
    written = json.loads(backend.to_str())
    vocabulary = written["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    written["model"]["byte_fallback"] = True
    backend = Tokenizer.from_str(json.dumps(written))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend
