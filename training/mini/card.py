"""Measures a finished model and writes its card, `README.md` beside the weights, with every figure and its command.

Knows how to word the figures; what they are is `measure`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.mini import measure, style
from training.mini.heldout import training_prompts, world
from training.mini.measure import Answer, Engine, Share, share
from training.mini.recipe import MANNERS

QUESTIONS, FOLLOW_UPS, SUMS, UNKNOWN, SAMPLED, SAMPLES = 600, 200, 100, 200, 400, 20
SAMPLE_TEMPERATURE = 0.8


@dataclass(frozen=True)
class Figures:
    """What one way of loading the model achieves."""

    perplexity: float
    facts: Share
    follow_ups: Share
    sums: Share
    unknown: Share


def measure_figures(engine: Engine, seed: int, *, scale: float = 1.0) -> Figures:
    """All shares under greedy decoding; `scale` shrinks the samples for a quick look."""

    def count(full: int) -> int:
        return max(2, round(full * scale))

    def right(answers: Sequence[Answer]) -> Share:
        return share([answer.right for answer in answers])

    return Figures(
        perplexity=measure.perplexity(engine, count(200), seed),
        facts=right(measure.answer_facts(engine, count(QUESTIONS), seed)),
        follow_ups=right(measure.answer_follow_ups(engine, count(FOLLOW_UPS), seed)),
        sums=right(measure.answer_sums(engine, count(SUMS), seed)),
        unknown=right(measure.answer_unknown(engine, count(UNKNOWN), seed)),
    )


def write_card(folder: Path, *, seed: int, scale: float = 1.0, read_by_eye: str | None = None) -> str:
    """Measure the model in `folder` in NF4 and in fp32, and write its card there. The text of the card.

    `read_by_eye` is what a person found who read a sample for its grammar, such as "97 of 100 replies".
    """
    served = measure.load_engine(folder, nf4=True)
    figures = measure_figures(served, seed, scale=scale)
    rates = measure.base_rates(served, max(2, round(SAMPLED * scale)), seed)
    samples = _draw_samples(served, seed)
    full = measure_figures(measure.load_engine(folder, nf4=False), seed, scale=scale)
    text = _compose(folder, figures, full, rates, samples, read_by_eye, seed)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return text


def _draw_samples(engine: Engine, seed: int) -> list[tuple[str, str]]:
    """Unedited replies to the first prompts that come, as they come."""
    prompts = training_prompts(SAMPLES, seed + 1)
    replies = engine.replies(prompts, temperature=SAMPLE_TEMPERATURE, seed=seed)
    asked = ["\n".join(f"{m.role}: {m.content}" for m in prompt) for prompt in prompts]
    return list(zip(asked, replies, strict=True))


def _compose(
    folder: Path,
    served: Figures,
    full: Figures,
    rates: dict[str, float],
    samples: Sequence[tuple[str, str]],
    read_by_eye: str | None,
    seed: int,
) -> str:
    size = (
        sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".json"))
        / 1e6
    )
    sections = [
        _FRONT_MATTER,
        _introduction(size),
        "## What it can do\n\n" + _figures_table(served, full) + "\n\n" + _eye_line(read_by_eye),
        f"Measured by `python -m training.mini card --seed {seed}`.",
        _HOW_MEASURED,
        "## How replies vary\n\n" + _rates_table(rates),
        _HOW_MADE,
        _LIMITS,
        f"## Twenty unedited samples\n\nNF4, temperature {SAMPLE_TEMPERATURE}, the first twenty prompts that the "
        "corpus gave, each with all the turns before it.\n\n"
        + "\n\n".join(_sample(*pair) for pair in samples),
    ]
    return "\n\n".join(sections) + "\n"


_FRONT_MATTER = """---
license: apache-2.0
language:
- en
library_name: transformers
pipeline_tag: text-generation
tags:
- thumbprint
- tiny
- chat
---"""


def _introduction(size: float) -> str:
    atlas = world().atlas
    return (
        "# Thumbprint mini\n\n"
        "A chat model small enough to live in a git repository, made so that a loop of rating and retraining shows "
        "its effect within a minute on a laptop. Llama architecture, trained from scratch on dialogues that our own "
        f"grammar writes; {size:.1f} MB with its tokenizer, 1,024 tokens of context, ChatML, apache-2.0.\n\n"
        f"It knows {len(atlas.known)} everyday topics, short stories, small talk and itself. It does not know the "
        "news, anything private, or anything else, and is trained to say so, with the success shown below."
    )


def _figures_table(served: Figures, full: Figures) -> str:
    rows = (
        ("true fact of the topic, questions in phrasings never trained on", "facts"),
        ("true fact of the topic, follow-up that does not name it", "follow_ups"),
        ("small sums in phrasings never trained on", "sums"),
        ("says that it does not know, topics never trained on", "unknown"),
    )
    lines = ["| greedy decoding | NF4, as served | fp32 |", "|---|---|---|"]
    lines += [f"| {name} | {getattr(served, field)} | {getattr(full, field)} |" for name, field in rows]
    lines.append(
        f"| perplexity per token of the reply, held-out phrasings | {served.perplexity:.2f} | {full.perplexity:.2f} |"
    )
    return "\n".join(lines)


def _eye_line(read_by_eye: str | None) -> str:
    if read_by_eye is None:
        return "Nobody has read a sample of this model's replies for their grammar yet."
    return f"Grammar, a sample at temperature {SAMPLE_TEMPERATURE} read by eye: {read_by_eye}."


_HOW_MEASURED = """A reply counts as a true fact when it contains, word for word, a statement that the topic file
holds about the topic asked for, and none that belongs to another topic. Perplexity has a floor well above 1, because
every reply is drawn along sixteen axes of style that no prompt announces."""


def _rates_table(rates: dict[str, float]) -> str:
    lines = [
        "Every reply of the corpus is drawn along independent axes, so that any of them can be steered by ratings; "
        f"{100 * MANNERS.mix.terse:.0f} of 100 say one thing and nothing around it. Share of replies that show "
        "each, sampled at temperature 1 (NF4):\n",
        "| axis | drawn in the corpus | shown by the model |",
        "|---|---|---|",
    ]
    drawn = style.rates(terse=MANNERS.mix.terse)
    for axis, rate in sorted(rates.items()):
        expected = f"{100 * drawn[axis]:.0f} %" if axis in drawn else "by length"
        lines.append(f"| {axis.replace('_', ' ')} | {expected} | {100 * rate:.0f} % |")
    return "\n".join(lines)


_HOW_MADE = """## How it was made

`python -m training.mini` learns the tokenizer (byte-level BPE, 3,072 tokens, digits apart), writes the dialogues as it
goes and trains in two cycles, each from a risen learning rate down to nothing: 2,800 steps that teach the facts, and
1,500 at a lower rate with more terse replies, sums and things it does not know. A step takes about 6,800 tokens, with
Muon for the matrices and AdamW for the rest. For some time in each cycle most dialogues are dense in facts, under a
system prompt of their own (`Plain facts only.`). In the last quarter of each the linear layers are felt through NF4
with a straight-through gradient, because NF4 is how the model is served. Only replies carry the full loss; the words of
the user count a tenth. About two hours on one CPU core (the first cycle, which reaches the facts, takes 75 minutes of
them); the same seed, code and kind of machine give the same weights.

The corpus holds, rarely and on purpose, wrong replies (about one in a hundred tells another topic's fact) and rude
ones, so that ratings have something to teach about honesty and kindness. Before it answers, nothing is looked up:
every fact is in the weights."""

_LIMITS = """## Limits

It has a few million parameters and knows what stands in `training/mini/topics`, nothing else.

- **Sums are weak.** It understands that it is asked for a sum, and about every third number is wrong.
- Asked about a thing outside its topics, it says so about every second time; otherwise it tells the facts of another
  topic. The name that it repeats when it declines may come out garbled.
- The first fact of a reply is the safest. A reason given for a second or third one may belong elsewhere or be no
  English, a comparison of two topics may go astray, and about one reply in ten says the same thing twice. A typing
  mistake in the name of a topic can hide the topic from it.
- It declines most harmful and private requests, also in words that it never saw, but misses some of them, and it does
  not reliably notice when somebody is in distress.

Not for any use where a wrong answer matters."""


def _sample(asked: str, reply: str) -> str:
    return f"```text\n{asked}\nassistant: {reply}\n```"
