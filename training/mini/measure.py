"""What a finished model can do: perplexity, facts, follow-ups, sums, honesty and base rates of style, with samples.

Works on any saved model folder, in fp32 or as the studio serves it (bitsandbytes NF4). Knows the corpus and
`generate`; knows nothing of training. All figures follow from the seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from training.mini import arithmetic
from training.mini.dialogue import Message, Writer
from training.mini.heldout import (
    HeldOut,
    follow_up_prompts,
    heldout_prompts,
    states_true_fact,
    training_prompts,
    unknown_topic_prompts,
    world,
)
from training.mini.packing import collate, pack
from training.mini.style import measure as measure_style
from training.mini.talk import admits_ignorance
from training.mini.tokenizer import END, PAD, START, encode_dialogues, encode_text, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

BATCH = 32
REPLY_TOKENS = 160


@dataclass(frozen=True)
class Engine:
    """A loaded model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast

    def replies(
        self, prompts: Sequence[Sequence[Message]], *, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[str]:
        """One reply to each prompt, in order; greedy at temperature 0, otherwise sampled from the full distribution."""
        torch.manual_seed(seed)
        order = sorted(range(len(prompts)), key=lambda place: sum(len(m.content) for m in prompts[place]))
        texts: dict[int, str] = {}
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            for place, text in zip(
                places, self._batch([prompts[p] for p in places], temperature), strict=True
            ):
                texts[place] = text
        return (texts[place] for place in range(len(prompts)))

    @torch.inference_mode()
    def _batch(self, prompts: Sequence[Sequence[Message]], temperature: float) -> list[str]:
        start, pad, end = self.tokenizer.convert_tokens_to_ids([START, PAD, END])
        opening = [start, *encode_text(self.tokenizer, ["assistant\n"])[0]]
        rows = [[*ids, *opening] for ids, _ in encode_dialogues(self.tokenizer, prompts)]
        width = max(len(row) for row in rows)
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        sampling: dict[str, float | None] = {"do_sample": False, "temperature": None, "top_p": None}
        if temperature:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=REPLY_TOKENS,
            pad_token_id=pad,
            eos_token_id=end,
            **sampling,
        )
        return [
            text.strip() for text in self.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        ]


def load_engine(folder: Path, *, nf4: bool) -> Engine:
    """The model of `folder` in fp32, its linear layers quantized to NF4 by bitsandbytes where asked."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=quantization if nf4 else None
    )
    return Engine(model.eval(), load_tokenizer(folder))


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    hits: int
    total: int

    def __str__(self) -> str:
        return f"{100 * self.hits / max(1, self.total):.1f} % ({self.hits} of {self.total})"


def share(hits: Sequence[bool]) -> Share:
    return Share(sum(hits), len(hits))


@torch.inference_mode()
def perplexity(engine: Engine, dialogues: int, seed: int) -> float:
    """Per token of the assistant, on dialogues in held-out phrasings; the styles drawn make it well above 1."""
    writer = Writer(world(), random.Random(f"perplexity {seed}"), held_out_phrasings=True)
    encoded = encode_dialogues(engine.tokenizer, [writer.dialogue() for _ in range(dialogues)])
    pad = engine.tokenizer.convert_tokens_to_ids(PAD)
    loss, count = 0.0, 0
    rows = pack(encoded, 512)
    for start in range(0, len(rows), 8):
        batch = collate(rows[start : start + 8], 512, pad)
        logits = engine.model(
            input_ids=batch.input_ids,
            position_ids=batch.positions,
            attention_mask=batch.attention,
            use_cache=False,
        ).logits
        said = batch.weights[:, 1:] == 1.0
        loss += torch.nn.functional.cross_entropy(
            logits[:, :-1][said].float(), batch.input_ids[:, 1:][said], reduction="sum"
        ).item()
        count += int(said.sum())
    return math.exp(loss / count)


@dataclass(frozen=True)
class Answer:
    """A prompt, the reply to it, and whether it was right."""

    prompt: tuple[Message, ...]
    reply: str
    intent: str
    right: bool


def answer_all(
    engine: Engine, prompts: Sequence[HeldOut], judge: Callable[[HeldOut, str], bool]
) -> list[Answer]:
    """Greedy replies to the prompts, each judged."""
    replies = engine.replies([prompt.prompt_messages for prompt in prompts])
    return [
        Answer(prompt.prompt_messages, reply, prompt.intent, judge(prompt, reply))
        for prompt, reply in zip(prompts, replies, strict=True)
    ]


def answer_facts(engine: Engine, count: int, seed: int) -> list[Answer]:
    """Questions about known topics in phrasings never trained on; right is a true fact of the topic."""
    return answer_all(engine, heldout_prompts(count, seed), _keeps_facts)


def answer_follow_ups(engine: Engine, count: int, seed: int) -> list[Answer]:
    """Second turns that do not name their topic, in held-out phrasings; right is a true fact of the topic."""
    return answer_all(engine, follow_up_prompts(count, seed), _keeps_facts)


def answer_unknown(engine: Engine, count: int, seed: int) -> list[Answer]:
    """Questions about topics that training never shows; right is to say that it does not know."""
    return answer_all(
        engine, unknown_topic_prompts(count, seed), lambda _, reply: admits_ignorance(world().talk, reply)
    )


def answer_sums(engine: Engine, count: int, seed: int) -> list[Answer]:
    """Small sums in held-out phrasings; right is the result in digits or words."""
    rng = random.Random(f"sums {seed}")
    sums = [arithmetic.draw_sum(rng) for _ in range(count)]
    asked = [
        rng.choice(arithmetic.PHRASINGS.held_out).replace("{sum}", arithmetic.spell(item, rng))
        for item in sums
    ]
    replies = engine.replies([(Message("user", text),) for text in asked])
    return [
        Answer((Message("user", text),), reply, item.sign, arithmetic.states_result(item, reply))
        for text, item, reply in zip(asked, sums, replies, strict=True)
    ]


def base_rates(engine: Engine, count: int, seed: int) -> dict[str, float]:
    """Share of replies, sampled at temperature 1 to prompts like those trained on, that show each axis of style."""
    prompts = [prompt for prompt in training_prompts(2 * count, seed) if prompt[0].role != "system"][:count]
    shown = [measure_style(reply) for reply in engine.replies(prompts, temperature=1.0, seed=seed)]
    return {axis: sum(marks[axis] for marks in shown) / len(shown) for axis in sorted(shown[0])}


def _keeps_facts(prompt: HeldOut, reply: str) -> bool:
    return states_true_fact(prompt.topic_name, reply)
