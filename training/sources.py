"""Somebody's dataset as feedback: the same judgements that a ledger holds, so that everything after it is the same.

A pair becomes a decided comparison, a thumb a rating of a turn, a demonstration a turn that was liked, and a prompt
without a reply a turn that nobody judged. What stands in a row is `training.dataset_rows`' to say, how files are read
`training.dataset_files`'. Every row that says nothing is counted with its reason and the places where it stood. This
module trains nothing and knows no ledger.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memory.schema import Comparison, LabeledComparison, Message, Rating, Turn
from training.dataset_files import DatasetUnreadable, RawRow, read_rows
from training.dataset_rows import (
    BadRow,
    Demonstration,
    Pair,
    Prompt,
    Question,
    Said,
    Thumb,
    read_row,
)
from training.views import Feedback

_GROUPS = (
    "dialogue",
    "dialogue_id",
    "conversation_id",
    "chat_id",
    "session_id",
    "thread_id",
    "message_tree_id",
)
_RATERS = ("rater", "rater_id", "annotator", "annotator_id", "worker", "worker_id")
_TELLING = 3
"""So many messages in a row are never the same by chance: rows that share them come from one dialogue."""
_PLACES_SHOWN = 5

_EXAMPLES: Mapping[type, dict[str, Any]] = {
    Pair: {
        "prompt": [{"role": "user", "content": "How do I boil an egg?"}],
        "chosen": [{"role": "assistant", "content": "Put it in boiling water for nine minutes."}],
        "rejected": [{"role": "assistant", "content": "Eggs are nice."}],
    },
    Thumb: {
        "prompt": [{"role": "user", "content": "How do I boil an egg?"}],
        "completion": [{"role": "assistant", "content": "Put it in boiling water for nine minutes."}],
        "label": True,
    },
    Demonstration: {
        "messages": [
            {"role": "user", "content": "How do I boil an egg?"},
            {"role": "assistant", "content": "Put it in boiling water for nine minutes."},
        ]
    },
    Question: {"prompt": [{"role": "user", "content": "How do I boil an egg?"}]},
}
_NAMES: Mapping[type, tuple[str, str]] = {
    Pair: ("pair", "pairs"),
    Thumb: ("rated reply", "rated replies"),
    Demonstration: ("demonstration", "demonstrations"),
    Question: ("prompt without a reply", "prompts without a reply"),
}
_FORMATS: Mapping[type, str] = {
    Pair: "pairs (prompt, chosen, rejected; the prompt may stand in both replies instead)",
    Thumb: "rated replies (prompt, completion, label)",
    Demonstration: "demonstrations (messages, or prompt and completion)",
    Question: "prompts (prompt)",
}
LEARNED: Mapping[str, tuple[type, ...]] = {
    "reward_model": (Pair, Thumb),
    "dpo": (Pair,),
    "kto": (Thumb, Pair),
    "sft": (Demonstration, Thumb),
    "rloo": (Pair, Thumb),
    "grpo": (Pair, Thumb),
    "ppo": (Pair, Thumb),
    "auto": (Pair, Thumb, Demonstration),
}
"""What each method learns from, the best first."""
_ASKING = ("ppo", "rloo", "grpo")
"""Methods whose policy answers prompts; these may be all that a dataset holds."""


class WrongColumns(ValueError):
    """A dataset that holds nothing that the method could learn from: what it has, what is expected, a right row."""


@dataclass(frozen=True)
class Source:
    """A dataset as feedback. `counts` says how much of each kind there is, `left_out` where the rows stood that say
    nothing, by reason."""

    feedback: Feedback
    counts: Mapping[str, int]
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def explain(self) -> list[str]:
        """What was read and what was left out, a sentence each."""
        sentences = [f"Read {', '.join(f'{count} {name}' for name, count in self.counts.items())}."]
        for reason, places in sorted(self.left_out.items(), key=lambda item: -len(item[1])):
            shown = ", ".join(places[:_PLACES_SHOWN]) + (", ..." if len(places) > _PLACES_SHOWN else "")
            sentences.append(f"Left out {len(places)}: {reason} ({shown}).")
        return sentences


@dataclass(frozen=True)
class _Row:
    """One thing that a dataset says, and where."""

    where: str
    said: Said
    group: str
    rater: str


def read_dataset(
    named: Sequence[str],
    *,
    method: str,
    split: str = "train",
    config: str = "",
    rows: int = 0,
    seed: int = 0,
) -> Source:
    """Everything that the files, folders or Hub datasets in `named` say, as feedback for `method`.

    At most `rows` of it, drawn with `seed`; 0: all. Raises `DatasetUnreadable`, and `WrongColumns` where nothing is
    there that the method could learn from, nor prompts for one that asks them.
    """
    raw = [row for name in named for row in read_rows(name, split=split, config=config)]
    if not raw:
        raise DatasetUnreadable(f"{', '.join(named)} holds no rows.")
    found, left_out = _parse(raw)
    found = _without_repeats(found, left_out)
    if rows and rows < len(found):
        kept = random.Random(seed).sample(range(len(found)), rows)
        found = [found[place] for place in sorted(kept)]
    if not any(isinstance(row.said, _usable(method)) for row in found):
        raise WrongColumns(_what_is_wrong(raw, found, left_out, method))
    counts = Counter(type(row.said) for row in found)
    named_counts = {_NAMES[kind][counts[kind] != 1]: counts[kind] for kind in _NAMES if counts[kind]}
    return Source(_feedback(found), named_counts, {reason: tuple(at) for reason, at in left_out.items()})


def _usable(method: str) -> tuple[type, ...]:
    return (*LEARNED[method], Question) if method in _ASKING else LEARNED[method]


def example_of(method: str) -> str:
    """A right row for `method`, as a line of JSON."""
    return json.dumps(_EXAMPLES[LEARNED[method][0]])


def _parse(raw: Iterable[RawRow]) -> tuple[list[_Row], dict[str, list[str]]]:
    found: list[_Row] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for row in raw:
        try:
            if row.problem:
                raise BadRow(row.problem)
            group, rater = _named(row.columns, _GROUPS), _named(row.columns, _RATERS) or "dataset"
            found += [_Row(row.where, said, group, rater) for said in read_row(row.columns)]
        except BadRow as reason:
            left_out[str(reason)].append(row.where)
    return found, left_out


def _named(columns: Mapping[str, Any], names: Sequence[str]) -> str:
    value = next((columns[name] for name in names if columns.get(name) not in (None, "")), "")
    return str(value) if isinstance(value, str | int) else ""


def _without_repeats(rows: Sequence[_Row], left_out: dict[str, list[str]]) -> list[_Row]:
    kept: dict[tuple[Said, str], _Row] = {}
    for row in rows:
        if kept.setdefault((row.said, row.rater), row) is not row:
            left_out["the same as a row before"].append(row.where)
    return list(kept.values())


def _what_is_wrong(
    raw: Sequence[RawRow], found: Sequence[_Row], left_out: Mapping[str, Sequence[str]], method: str
) -> str:
    columns = sorted({name for row in raw for name in row.columns})
    if found:
        there = " and ".join(sorted({_FORMATS[type(row.said)] for row in found}))
        others = sorted(name for name in LEARNED if any(isinstance(row.said, _usable(name)) for row in found))
        there = f"These rows are {there}. {', '.join(others)} can learn from them."
    else:
        reason, places = max(left_out.items(), key=lambda item: len(item[1]))
        there = f"None of {len(raw)} rows can be used; {len(places)} of them: {reason} (such as {places[0]})."
    expected = " or ".join(_FORMATS[kind] for kind in LEARNED[method])
    return (
        f"{method} finds nothing to learn from. {there} The columns are {', '.join(columns) or 'none'}; {method} "
        f"expects {expected}. A right row:\n{example_of(method)}"
    )


def _feedback(rows: Sequence[_Row]) -> Feedback:
    comparisons: list[LabeledComparison] = []
    ratings: list[Rating] = []
    turns: dict[str, Turn] = {}
    for row, conversation in zip(rows, _conversations(rows), strict=True):
        # A conversation gives several demonstrations in one line.
        place = row.where if row.where not in turns else f"{row.where}#{len(turns)}"
        if isinstance(row.said, Pair):
            comparisons.append(_comparison(row.said, place, conversation, row.rater))
            continue
        turns[place] = _turn(row.said, place, conversation)
        if isinstance(row.said, Thumb | Demonstration):
            liked = row.said.label if isinstance(row.said, Thumb) else True
            ratings.append(Rating(place, 1 if liked else -1, row.rater, created_at=0.0))
    return Feedback(comparisons=tuple(comparisons), ratings=tuple(ratings), turns=turns)


def _comparison(pair: Pair, place: str, conversation: str, rater: str) -> LabeledComparison:
    asked = Comparison(
        id=place,
        conversation_id=conversation,
        prompt=pair.prompt,
        turn_A=f"{place}/chosen",
        turn_B=f"{place}/rejected",
        completion_A=pair.chosen,
        completion_B=pair.rejected,
        version_A="",
        version_B="",
        shown_first="A",
        created_at=0.0,
    )
    return LabeledComparison(asked, "A", rater, seconds=0.0, created_at=0.0)


def _turn(said: Thumb | Demonstration | Question, place: str, conversation: str) -> Turn:
    return Turn(
        id=place,
        conversation_id=conversation,
        prompt=said.prompt,
        completion="" if isinstance(said, Question) else said.completion,
        policy_version="",
        fingerprint="",
        sampling={},
        prompt_tokens=0,
        completion_tokens=0,
        finish="stop",
        created_at=0.0,
    )


def _conversations(rows: Sequence[_Row]) -> list[str]:
    """The conversation of each row: those that the dataset tells apart, put together where they share a stretch of
    dialogue, because a dataset may hold the same dialogue under two names, or none.

    A row without a name is a conversation of its own where it shares nothing.
    """
    leaders: dict[str, str] = {}

    def leader(name: str) -> str:
        while leaders.setdefault(name, name) != name:
            leaders[name] = leaders[leaders[name]]
            name = leaders[name]
        return name

    names = [row.group or row.where for row in rows]
    first: dict[Prompt, str] = {}
    for row, name in zip(rows, names, strict=True):
        for stretch in _stretches(row.said.prompt):
            other = leader(first.setdefault(stretch, name))
            leaders[leader(name)] = other
    return [leader(name) for name in names]


def _stretches(prompt: Prompt) -> Iterable[tuple[Message, ...]]:
    """The beginnings of a dialogue that are long enough to tell it from others, up to each of the user's messages."""
    spoken = [message for message in prompt if message.role != "system"]
    plain = tuple(Message(said.role, " ".join(said.content.casefold().split())) for said in spoken)
    return (plain[: at + 1] for at in range(_TELLING - 1, len(plain)) if plain[at].role == "user")
