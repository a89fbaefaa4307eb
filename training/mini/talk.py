"""Exchanges that are not about a topic (greetings, small talk, refusals, honest ignorance), read from `talk.toml`.

Also the names that fill them: people, things the model does not know (real ones from `unknown.txt` and
`everyday.txt`, and invented ones) and sums that are too big. Knows nothing of topics beyond their names, which it is
given.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training.mini import phrases
from training.mini.asking import Phrasings
from training.mini.grammar import REMARK, Body, Clause
from training.mini.topics import normalise

TALK_FILE = Path(__file__).parent / "talk.toml"
UNKNOWN_FILE = Path(__file__).parent / "unknown.txt"
EVERYDAY_FILE = Path(__file__).parent / "everyday.txt"
HELD_OUT_UNKNOWN = 8
"""Every eighth real unknown thing is kept out of training."""

PEOPLE = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Maria", "Noah",
    "Olivia", "Paul", "Rosa", "Sam", "Tina", "Victor", "Zoe", "Omar", "Yuki", "Priya", "Carlos", "Lena", "Tom", "Nina",
    "Alex", "Mia", "John", "Sara", "Peter", "Lucy", "Max", "Ella", "Ali", "Fatima", "Chen", "Ravi",
)  # fmt: skip

_STARTS = ("b", "br", "ch", "d", "dr", "f", "fl", "g", "gl", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "pl", "qu",
           "r", "s", "sk", "sn", "st", "t", "tr", "v", "w", "y", "z", "zh")  # fmt: skip
_MIDDLES = ("a", "e", "i", "o", "u", "ai", "ee", "oo", "ou", "ar", "er", "or", "in", "on", "an", "el", "om")
_ENDS = ("", "x", "n", "r", "t", "k", "th", "rd", "mp", "nk", "st", "sh", "l", "ff", "ng")


@dataclass(frozen=True)
class Exchange:
    """One kind of small exchange: what a person may say, and what may be answered."""

    name: str
    weight: float
    asks: Phrasings
    core: tuple[Clause, ...]
    more: tuple[Clause, ...]
    openings: tuple[str, ...]
    courtesies: tuple[str, ...]
    questions: tuple[str, ...]
    example: str | None
    tip: str | None
    serious: bool
    first_only: bool

    def body(self, rng: random.Random, filling: dict[str, str]) -> Body:
        """One way to answer, with the placeholders filled."""
        more = rng.sample(self.more, len(self.more))
        questions = rng.sample(self.questions, len(self.questions))
        return Body(
            core=(_fill_clause(rng.choice(self.core), filling),),
            more=tuple(_fill_clause(clause, filling) for clause in more),
            openings=tuple(fill(opening, filling) for opening in self.openings),
            courtesies=self.courtesies,
            example=fill(self.example, filling) if self.example else None,
            tip=fill(self.tip, filling) if self.tip else None,
            questions=tuple(fill(question, filling) for question in questions),
            serious=self.serious,
            trailers=phrases.TALE_TRAILERS if self.name == "joke" else phrases.TALK_TRAILERS,
        )


@dataclass(frozen=True)
class Talk:
    """All exchanges and the names that fill them."""

    exchanges: tuple[Exchange, ...]
    unknown: tuple[str, ...]
    """Learned or famous things that the model does not know."""
    everyday: tuple[str, ...]
    """Everyday things that it does not know either."""
    unknown_held_out: tuple[str, ...]

    @cached_property
    def by_name(self) -> dict[str, Exchange]:
        return {exchange.name: exchange for exchange in self.exchanges}


def load_talk(topic_names: frozenset[str]) -> Talk:
    """Read exchanges and unknown things; a thing that shares a word with one of `topic_names` is not unknown."""
    entries = tomllib.loads(TALK_FILE.read_text(encoding="utf-8"))["exchange"]
    known = {word.rstrip("s") for name in topic_names for word in normalise(name).split() if len(word) > 3}
    strange, everyday = (
        [t for t in path.read_text(encoding="utf-8").strip().split("|") if not _words(t) & known]
        for path in (UNKNOWN_FILE, EVERYDAY_FILE)
    )
    return Talk(
        exchanges=tuple(_read_exchange(entry) for entry in entries),
        unknown=tuple(thing for place, thing in enumerate(strange) if place % HELD_OUT_UNKNOWN),
        everyday=tuple(everyday),
        unknown_held_out=tuple(strange[::HELD_OUT_UNKNOWN]),
    )


def _words(name: str) -> set[str]:
    return {word.rstrip("s") for word in normalise(name).split()}


def admits_ignorance(talk: Talk, reply: str) -> bool:
    """Whether a reply says, in one of the corpus' ways, that the model does not know or cannot do this."""
    said = normalise(reply)
    names = ("unknown thing", "news", "tasks beyond", "advice beyond", "big sum")
    ways = (w for name in names for c in talk.by_name[name].core for w in (c.text, c.first or c.text))
    return any(all(normalise(part) in said for part in way.split("{thing}")) for way in ways)


def invent_name(rng: random.Random) -> str:
    """A word that no dictionary has, such as "drelom"."""
    word = "".join(
        rng.choice(_STARTS) + rng.choice(_MIDDLES) for _ in range(rng.choice((1, 2, 2, 3)))
    ) + rng.choice(_ENDS)
    return ("a " if rng.random() < 0.15 else "the " if rng.random() < 0.1 else "") + word


def big_sum(rng: random.Random) -> str:
    first, second = rng.randint(50, 9999), rng.randint(21, 999)
    sign = rng.choice((" times ", " * ", " + ", " plus ", "*", " x ", " minus ", " divided by "))
    return f"{first}{sign}{second}"


def fill(text: str, filling: dict[str, str]) -> str:
    for key, value in filling.items():
        text = text.replace("{" + key + "}", value)
    return text


def _fill_clause(clause: Clause, filling: dict[str, str]) -> Clause:
    first = fill(clause.first, filling) if clause.first else None
    return Clause(fill(clause.text, filling), clause.kind, clause.because, first)


def _read_exchange(entry: dict[str, Any]) -> Exchange:
    def clauses(key: str) -> tuple[Clause, ...]:
        return tuple(
            Clause(item["say"], item.get("kind", REMARK), item.get("because"), item.get("first"))
            for item in entry.get(key, [])
        )

    return Exchange(
        name=entry["name"],
        weight=float(entry["weight"]),
        asks=Phrasings(tuple(entry["trained"]), tuple(entry["held_out"])),
        core=clauses("core"),
        more=clauses("more"),
        openings=tuple(entry.get("openings", ())),
        courtesies=tuple(entry.get("courtesies", ())),
        questions=tuple(entry["questions"]),
        example=entry.get("example"),
        tip=entry.get("tip"),
        serious=entry.get("serious", False),
        first_only=entry.get("first_only", False),
    )
