"""The recall test: a fact is planted at a known depth of a long dialogue and asked for at its end.

A strategy has it found again when the value stands in the prompt that it makes; whether a model then says it is the
model's matter. All have the same budget of tokens. Beside ours stand what LangChain had for this in its deprecated
memories, as their documentation sets them up. It knows no database: strategies get the dialogue as a list, as in
anyone's chain, and summaries are made as the dialogue grows.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.memory_classic import classic_summary, classic_tokens, classic_vectors, classic_window
from memory.past import ListedPast, joined
from memory.schema import Message
from memory.strategies.choosing import strategy_for
from memory.strategies.preparing import Request
from memory.strategies.recall import ListedRecollection, RecallAddition
from memory.strategies.summarising import pick_sentences
from memory.strategies.summary import InMemorySummaries, RollingSummary
from memory.window import Counter

DEPTHS = (0.05, 0.25, 0.5, 0.75, 0.95)
MESSAGES = 200
Prompter = Callable[[Sequence[Message], int, Counter], Sequence[Message]]
"""(dialogue, budget, counter) -> what the model would see."""


@dataclass(frozen=True)
class Fact:
    """Said by the person, and asked for with the same word or in other words."""

    said: str
    asked: str
    paraphrased: str
    value: str


_FACTS = (
    ("By the way, my sister is called {}.", "What is my sister called?", "Who are my siblings?", "names"),
    (
        "My flight to Lisbon leaves from gate {}.",
        "From which gate does my flight leave?",
        "Where do I board?",
        "codes",
    ),
    ("Please note that I am allergic to {}.", "What am I allergic to?", "Which food must I avoid?", "foods"),
    (
        "The password of my bicycle lock is {}.",
        "What is my bicycle lock's password?",
        "How do I open my bike?",
        "codes",
    ),
    (
        "I grew up in a village named {}.",
        "In which village did I grow up?",
        "Where was my childhood home?",
        "names",
    ),
    (
        "My dentist's appointment is on the {}.",
        "When is my dentist's appointment?",
        "When do I see the doctor?",
        "days",
    ),
)
_VALUES = {
    "names": [
        "Marlindra",
        "Tovesk",
        "Ullaby",
        "Quenford",
        "Zabrine",
        "Iskwood",
        "Pellathorn",
        "Ruvania",
        "Dornessa",
        "Yolmere",
    ],
    "codes": ["B47K", "Q93X", "7741", "K28Z", "9058", "V61T", "3369", "H52W", "6607", "N84R"],
    "foods": [
        "cashews",
        "shellfish",
        "celery",
        "mustard",
        "lupins",
        "sesame",
        "kiwis",
        "apricots",
        "walnuts",
        "molluscs",
    ],
    "days": ["14th", "23rd", "9th", "31st", "17th", "26th", "11th", "29th", "5th", "20th"],
}


def dialogues_in(file: Path | None) -> list[list[Message]]:
    """Real dialogues, the longest stretch of each; invented ones, and a line that says so, where no file is given."""
    if file is None:
        print("No --dialogues given: the filler is invented, which makes recall easier than in real talk.")
        from benchmarks.memory_filling import sentence

        rng = random.Random(1)
        return [
            [Message("user" if n % 2 == 0 else "assistant", sentence(rng, n)) for n in range(10)]
            for _ in range(400)
        ]
    longest: dict[str, list[Message]] = {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            said = [Message(turn["role"], turn["content"]) for turn in row["prompt"] + row["completion"]]
            while said and said[0].role != "user":
                said.pop(0)
            if len(said) > len(longest.get(row["dialogue"], [])):
                longest[row["dialogue"]] = said
    return [said[: len(said) // 2 * 2] for said in longest.values() if len(said) >= 4]


def recall_table(
    filler: list[list[Message]], count: Counter, *, budget: int, facts: int
) -> list[dict[str, Any]]:
    """Share of facts in the prompt, by how it is made and by the depth at which the fact was said (1.0: just now).

    Half of the questions use the fact's own words, half other words; the last two columns tell them apart.
    """
    count = remembering(count)
    rows = []
    for name, prompter in prompters().items():
        rng = random.Random(7)
        found: dict[Any, list[bool]] = {}
        for depth, number in itertools.product(DEPTHS, range(facts)):
            fact = _fact(rng)
            other_words = number % 2 == 1
            dialogue = planted(filler, fact, depth=depth, rng=rng, other_words=other_words)
            prompt = prompter(dialogue, budget, count)
            assert count(prompt) <= budget, f"{name} made a prompt over the budget"
            hit = fact.value in " ".join(message.content for message in prompt)
            for column in (depth, "other words" if other_words else "same words"):
                found.setdefault(column, []).append(hit)
        shares = {str(column): sum(hits) / len(hits) for column, hits in found.items()}
        order = [*map(str, DEPTHS), "same words", "other words"]
        rows.append({"remembering": name, **{column: round(shares[column], 2) for column in order}})
    return rows


def remembering(count: Counter) -> Counter:
    """The same counter for a template whose messages add up, as the shipped model's do: each message is counted once.
    The deprecated memories count the whole past again after every message, which would take hours here.
    """
    alone = lru_cache(maxsize=None)(lambda content: count([Message("user", content)]))
    opening = 2 * alone("x") - count([Message("user", "x"), Message("user", "x")])
    return lambda messages: opening + sum(alone(message.content) - opening for message in messages)


def planted(
    filler: list[list[Message]], fact: Fact, *, depth: float, rng: random.Random, other_words: bool
) -> list[Message]:
    """A dialogue of about `MESSAGES` messages made of real ones, the fact said at `depth`, the question at its end."""
    said: list[Message] = []
    while len(said) < MESSAGES:
        said += rng.choice(filler)
    place = int(len(said) * depth) // 2 * 2
    fact_turn = [Message("user", fact.said), Message("assistant", "Good to know.")]
    question = Message("user", fact.paraphrased if other_words else fact.asked)
    return joined([*said[:place], *fact_turn, *said[place:], question])


def prompters() -> dict[str, Prompter]:
    """Everything that is compared, by name."""
    return {
        "last 4 turns": _ours(
            lambda: strategy_for("last_turns:4", summaries=InMemorySummaries(), recollection=_BM25)
        ),
        "token budget": _ours(
            lambda: strategy_for("token_budget", summaries=InMemorySummaries(), recollection=_BM25)
        ),
        "summary (picked)": _ours(lambda: RollingSummary(InMemorySummaries(), summarise=pick_sentences)),
        "recall (BM25)": _ours(
            lambda: strategy_for("recall", summaries=InMemorySummaries(), recollection=_BM25)
        ),
        "summary + recall": _ours(
            lambda: RollingSummary(
                InMemorySummaries(), summarise=pick_sentences, others=[RecallAddition(_BM25)]
            )
        ),
        "LC window": classic_window,
        "LC token buffer": classic_tokens,
        "LC summary buffer": classic_summary,
        "LC vector store": classic_vectors,
    }


_BM25 = ListedRecollection()


def _ours(make: Callable[[], Any]) -> Prompter:
    def prompt(dialogue: Sequence[Message], budget: int, count: Counter) -> Sequence[Message]:
        strategy = make()
        return list(strategy.prepare(Request("", ListedPast(dialogue), budget, count)).messages)

    return prompt


def _fact(rng: random.Random) -> Fact:
    said, asked, paraphrased, kind = rng.choice(_FACTS)
    value = rng.choice(_VALUES[kind])
    return Fact(said.format(value), asked, paraphrased, value)
