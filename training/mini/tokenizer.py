"""A byte-level BPE tokenizer learned on the corpus, with ChatML specials and a chat template that marks replies.

Any text can be encoded (bytes at worst), digits stand alone so that sums can be learned, and special tokens come only
from the template: `encode_text` turns a typed `<|im_end|>` into ordinary tokens. Knows nothing of topics or training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.mini.dialogue import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTEXT = 1024

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- message['content'] + '<|im_end|>' -}}"
    "{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def learn_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn merges on plain texts until `vocabulary` tokens (three of them special) are reached."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(str(folder))
    return tokenizer


def encode_text(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Encode each text as text: what looks like a special token becomes ordinary tokens."""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    return ids


def encode_dialogues(
    tokenizer: PreTrainedTokenizerFast, dialogues: Sequence[Sequence[Message]]
) -> list[tuple[list[int], list[bool]]]:
    """Token ids of each dialogue as the chat template lays it out, and which of them the assistant generates."""
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    names = ("system", "user", "assistant")
    newline, *heads = encode_text(tokenizer, ["\n", *(f"{name}\n" for name in names)])
    head = dict(zip(names, heads, strict=True))
    contents = iter(encode_text(tokenizer, [m.content for dialogue in dialogues for m in dialogue]))
    encoded = []
    for dialogue in dialogues:
        ids: list[int] = []
        generated: list[bool] = []
        for message in dialogue:
            content = [*next(contents), end]
            before = [start, *head[message.role]]
            ids += [*before, *content, *newline]
            generated += (
                [False] * len(before) + [message.role == "assistant"] * len(content) + [False] * len(newline)
            )
        encoded.append((ids, generated))
    return encoded
