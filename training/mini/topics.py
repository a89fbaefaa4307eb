"""The everyday topics that the mini corpus knows, read from `topics/*.toml` into frozen dataclasses.

Also says which topics are held out of training, and whether a reply states a true fact of a topic. It knows nothing
of questions, styles or models: a reply is only text here.

Refuses files that break the schema, naming the file, the topic and the field.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

TOPIC_FOLDER = Path(__file__).parent / "topics"
HELD_OUT = frozenset(
    (
        "binary numbers", "bookshelf", "choir", "comets", "cork", "dominoes", "escalator", "ferry", "good posture",
        "kitchen scales", "mop", "moss", "polyester", "printing press", "roundabout", "saucepan", "spreadsheet",
        "tongue", "tower crane", "willow tree",
    )
)  # fmt: skip
"""Topics that never appear in training, chosen so that a visitor hardly misses them."""

_COUNTS = {"facts": 5, "uses": 3, "tips": 3, "asks": 3}
_EXPANSIONS = (
    ("it's", "it is"),
    ("they're", "they are"),
    ("that's", "that is"),
    ("can't", "cannot"),
    ("don't", "do not"),
    ("doesn't", "does not"),
    ("isn't", "is not"),
    ("aren't", "are not"),
    ("won't", "will not"),
    ("you're", "you are"),
    ("you'll", "you will"),
    ("there's", "there is"),
    ("here's", "here is"),
    ("what's", "what is"),
    ("i'm", "i am"),
    ("i'd", "i would"),
    ("i'll", "i will"),
    ("i've", "i have"),
)
_IRREGULAR = {
    "knife": "knives", "leaf": "leaves", "wolf": "wolves", "mouse": "mice", "goose": "geese", "tooth": "teeth",
    "foot": "feet", "child": "children", "fish": "fish", "sheep": "sheep", "deer": "deer", "loaf": "loaves",
    "scarf": "scarves", "shelf": "shelves", "person": "people", "man": "men", "woman": "women", "potato": "potatoes",
    "tomato": "tomatoes", "volcano": "volcanoes", "tornado": "tornadoes", "echo": "echoes", "mosquito": "mosquitoes",
}  # fmt: skip
_LEADING_AUXILIARY = re.compile(r"^(is|are|can|may|has|have) ")


@dataclass(frozen=True)
class Fact:
    """A predicate with the topic as its subject, and why it holds (None where nobody wrote a reason)."""

    say: str
    because: str | None


@dataclass(frozen=True)
class Ask:
    """A specific question ({it} or {obj} stands for the topic) and the predicate that answers it."""

    ask: str
    answer: str


@dataclass(frozen=True)
class Topic:
    """One everyday topic: `name` as typed by a person, `noun` as it stands in the middle of a sentence."""

    name: str
    noun: str
    plural: bool
    what: str
    facts: tuple[Fact, ...]
    uses: tuple[str, ...]
    tips: tuple[str, ...]
    example: str
    asks: tuple[Ask, ...]

    @property
    def many(self) -> str:
        """How people name the topic in general: "bicycles" for "a bicycle", otherwise its noun."""
        if (
            self.plural
            or not self.noun.startswith(("a ", "an "))
            or " of " in self.name
            or " in " in self.name
        ):
            return self.noun
        head, _, last = self.name.rpartition(" ")
        return f"{head} {_pluralise(last)}".strip()

    @property
    def pronoun(self) -> str:
        return "they" if self.plural else "it"

    @property
    def object_pronoun(self) -> str:
        return "them" if self.plural else "it"

    @property
    def be(self) -> str:
        return "are" if self.plural else "is"

    @property
    def held_out(self) -> bool:
        """Whether the topic never appears in training."""
        return self.name in HELD_OUT

    @cached_property
    def claims(self) -> tuple[str, ...]:
        """Every normalised statement that counts as a true fact of this topic when a reply contains it."""
        sayings = [self.what, self.example, *self.uses, *self.tips]
        sayings += [fact.say for fact in self.facts]
        sayings += [fact.because for fact in self.facts if fact.because]
        sayings += [ask.answer for ask in self.asks]
        claims = (_LEADING_AUXILIARY.sub("", normalise(saying)) for saying in sayings)
        return tuple(dict.fromkeys(claim for claim in claims if claim))

    def claimed_in(self, reply: str) -> tuple[str, ...]:
        """The claims of this topic that `reply` contains."""
        said = f" {normalise(reply)} "
        return tuple(claim for claim in self.claims if f" {claim} " in said)


@dataclass(frozen=True)
class Atlas:
    """All topics of the corpus, split into those trained on and those held out."""

    topics: tuple[Topic, ...]

    @cached_property
    def known(self) -> tuple[Topic, ...]:
        return tuple(topic for topic in self.topics if not topic.held_out)

    @cached_property
    def held_out(self) -> tuple[Topic, ...]:
        return tuple(topic for topic in self.topics if topic.held_out)

    @cached_property
    def by_name(self) -> dict[str, Topic]:
        return {topic.name: topic for topic in self.topics}

    @cached_property
    def _owners(self) -> dict[str, frozenset[str]]:
        owners: dict[str, set[str]] = {}
        for topic in self.topics:
            for claim in topic.claims:
                owners.setdefault(claim, set()).add(topic.name)
        return {claim: frozenset(names) for claim, names in owners.items()}

    @cached_property
    def _mention(self) -> re.Pattern[str]:
        names = {
            normalise(spelling): None
            for topic in self.topics
            for spelling in (topic.name, topic.noun, topic.many)
        }
        ordered = sorted(names, key=len, reverse=True)
        return re.compile(r"\b(" + "|".join(re.escape(name) for name in ordered) + r")\b")

    @cached_property
    def _spellings(self) -> dict[str, Topic]:
        return {
            normalise(s): topic
            for topic in reversed(self.topics)
            for s in (topic.many, topic.noun, topic.name)
        }

    def mentioned(self, text: str) -> tuple[Topic, ...]:
        """The topics that `text` names, in order of first mention, the longest name winning at each place."""
        found = (self._spellings[match] for match in self._mention.findall(normalise(text)))
        return tuple(dict.fromkeys(found))

    def states_true_fact(self, topic: Topic, reply: str) -> bool:
        """Whether `reply` states a fact of `topic` and none that belongs only to another topic.

        A claim of another topic is tolerated where it is a part of one of this topic's own claims.
        """
        own = topic.claimed_in(reply)
        if not own:
            return False
        said = f" {normalise(reply)} "
        for claim in own:
            said = said.replace(f" {claim} ", " | ")
        return not any(
            f" {claim} " in said
            for claim, names in self._owners.items()
            if topic.name not in names and claim.count(" ") >= 2
        )


def normalise(text: str) -> str:
    """Lower case, contractions written out, punctuation and the filler "also" dropped, single spaces."""
    text = text.lower().replace("\u2019", "'")
    for short, long in _EXPANSIONS:
        text = text.replace(short, long)
    words = re.sub(r"[^a-z0-9']+", " ", text).split()
    return " ".join(word for word in words if word != "also")


def _pluralise(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def load_atlas(folder: Path = TOPIC_FOLDER) -> Atlas:
    """Read and check every topic file, in order of file name. Raises ValueError naming file, topic and field."""
    topics: dict[str, Topic] = {}
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("topic", []):
            topic = _read_topic(entry, path.name)
            if topic.name in topics:
                raise ValueError(f"{path.name}: topic {topic.name!r} stands in two files; keep one of them.")
            topics[topic.name] = topic
    if not topics:
        raise ValueError(f"No topics in {folder}: expected *.toml files with [[topic]] tables.")
    return Atlas(tuple(topics.values()))


def _read_topic(entry: dict[str, Any], file: str) -> Topic:
    where = f"{file}, topic {entry.get('name', '(no name)')!r}"
    for field in ("name", "noun", "number", "what", "example"):
        if not isinstance(entry.get(field), str) or not entry[field].strip():
            raise ValueError(f"{where}: {field} is {entry.get(field)!r}, expected a non-empty string.")
    for field, count in _COUNTS.items():
        if not isinstance(entry.get(field), list) or len(entry[field]) != count:
            raise ValueError(f"{where}: expected exactly {count} {field}, got {len(entry.get(field, []))}.")
    if entry["number"] not in ("singular", "plural"):
        raise ValueError(f"{where}: number is {entry['number']!r}, expected 'singular' or 'plural'.")
    return Topic(
        name=entry["name"],
        noun=entry["noun"],
        plural=entry["number"] == "plural",
        what=_clean(entry["what"]),
        facts=tuple(Fact(_clean(fact["say"]), _reason(fact.get("because"))) for fact in entry["facts"]),
        uses=tuple(_clean(use) for use in entry["uses"]),
        tips=tuple(_clean(tip) for tip in entry["tips"]),
        example=_clean(entry["example"]),
        asks=tuple(Ask(_clean(ask["ask"]), _clean(ask["answer"])) for ask in entry["asks"]),
    )


def _clean(text: str) -> str:
    return text.strip().rstrip(".?!")


def _reason(because: str | None) -> str | None:
    return _clean(because).removeprefix("because ") if because else None
