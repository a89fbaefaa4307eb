"""Real human judgements from files, as orderings: who is trained on, who is examined, and that neither knows the other.

Three sets: ``accentor`` (facebookresearch/accentor, CC-BY-SA-4.0: 10,000 pairs to train on, 2,012 of other dialogues to
be examined by, and 30,000 thumbs); ``hh`` (anthropics/hh-rlhf, MIT: 1,181 pairs in two halves by their first question);
``oasst`` (LAION-AI/Open-Assistant, Apache-2.0: the rankings in 100 message trees, in two halves of trees). The files
are gzipped JSON lines in a folder that is named on the command line; nothing of them is part of this repository. It
trains nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory.schema import Message
from training.orderings import Ordering
from training.split import prompt_key

SETS = ("accentor", "hh-first", "hh-second", "oasst-first", "oasst-second")
"""hh-first trains on the first half and is examined on the second; hh-second the other way round."""
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class UnreadableData(ValueError):
    """A file that is not there or not of the kind it should be."""


@dataclass(frozen=True)
class HumanSet:
    """Orderings to train on, thumbs that may be added to them, and orderings to be examined by."""

    name: str
    train: tuple[Ordering, ...]
    thumbs: tuple[Ordering, ...]
    test: tuple[Ordering, ...]

    def validating(self, share: float = 0.2) -> HumanSet:
        """The training part alone, divided again: settings are chosen on this, so that `test` stays unseen."""
        aside = {
            item.conversation_id for item in self.train if _place(item.conversation_id, "validation") < share
        }
        test = tuple(item for item in self.train if item.conversation_id in aside)
        taken = {prompt_key(item.prompt) for item in test}
        return HumanSet(
            f"{self.name} (validation)",
            tuple(_apart(self.train, aside, taken)),
            tuple(_apart(self.thumbs, aside, taken)),
            test,
        )


def read_set(folder: Path, name: str) -> HumanSet:
    """The set `name` from the files in `folder`. Raises `UnreadableData`.

    Of the training part, whatever shares a dialogue or a prompt with the test part is left out.
    """
    if name == "accentor":
        train = [_pair(row, number) for number, row in enumerate(_rows(folder, "accentor_pairs"))]
        test = [_pair(row, number) for number, row in enumerate(_rows(folder, "accentor_pairs_dev"))]
        thumbs = [_thumb(row, number) for number, row in enumerate(_rows(folder, "accentor_thumbs"))]
    elif name in SETS:
        pairs = (
            _transcripts(_rows(folder, "hh_harmless"))
            if name.startswith("hh")
            else _rankings(_rows(folder, "oasst_trees"))
        )
        train, test = _halves(pairs) if name.endswith("first") else _halves(pairs)[::-1]
        thumbs = []
    else:
        raise UnreadableData(f"There is no set {name!r}; expected one of {', '.join(SETS)}.")
    asked = {item.conversation_id for item in test}
    taken = {prompt_key(item.prompt) for item in test}
    return HumanSet(
        name, tuple(_apart(train, asked, taken)), tuple(_apart(thumbs, asked, taken)), tuple(test)
    )


def _apart(
    orderings: Iterable[Ordering], conversations: set[str], prompts: set[tuple[Message, ...]]
) -> Iterable[Ordering]:
    """The orderings of other conversations, on other prompts."""
    return (
        item
        for item in orderings
        if item.conversation_id not in conversations and prompt_key(item.prompt) not in prompts
    )


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"{name}.jsonl.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UnreadableData(
            f"{path} cannot be read ({error}). Expected gzipped JSON lines; name their folder with --data."
        ) from error


def _pair(row: Mapping[str, Any], number: int) -> Ordering:
    said = (row["chosen"][0]["content"], row["rejected"][0]["content"])
    prompt = _messages(row["prompt"])
    return Ordering(prompt, said, (True, True), "", row["dialogue"], f"pair:{number}")


def _thumb(row: Mapping[str, Any], number: int) -> Ordering:
    said = (row["completion"][0]["content"],)
    prompt = _messages(row["prompt"])
    return Ordering(prompt, said, (True,), "", row["dialogue"], f"thumb:{number}", liked=row["label"])


def _messages(messages: Iterable[Mapping[str, str]]) -> tuple[Message, ...]:
    return tuple(Message(message["role"], message["content"]) for message in messages)  # type: ignore[arg-type]


def _halves(orderings: Iterable[Ordering]) -> tuple[list[Ordering], list[Ordering]]:
    """In two by conversation."""
    halves: tuple[list[Ordering], list[Ordering]] = ([], [])
    for ordering in orderings:
        halves[_place(ordering.conversation_id, "half") >= 0.5].append(ordering)
    return halves


def _transcripts(rows: Iterable[Mapping[str, str]]) -> Iterable[Ordering]:
    """The pairs whose two transcripts differ in the last reply alone; a conversation is known by its first message."""
    for number, row in enumerate(rows):
        chosen, rejected = transcript(row["chosen"]), transcript(row["rejected"])
        said = (chosen[-1].content, rejected[-1].content)
        if chosen[:-1] == rejected[:-1] and all(said) and said[0] != said[1]:
            yield Ordering(chosen[:-1], said, (True, True), "", chosen[0].content, f"pair:{number}")


def _rankings(trees: Iterable[Mapping[str, Any]]) -> Iterable[Ordering]:
    """The ranked replies at every place of every tree."""
    for tree in trees:
        waiting: list[tuple[Mapping[str, Any], tuple[Message, ...]]] = [(tree["prompt"], ())]
        while waiting:
            node, before = waiting.pop()
            said = (*before, Message("user" if node["role"] == "prompter" else "assistant", node["text"]))
            waiting += [(reply, said) for reply in node["replies"]]
            ranked = [reply for reply in node["replies"] if reply.get("rank") is not None]
            ranked.sort(key=lambda reply: int(reply["rank"]))
            replies = tuple(dict.fromkeys(reply["text"] for reply in ranked if reply["text"].strip()))
            if len(replies) > 1 and said[-1].role == "user":
                finished = (True,) * len(replies)
                yield Ordering(said, replies, finished, "", tree["message_tree_id"], node["message_id"])


def transcript(text: str) -> tuple[Message, ...]:
    """The messages of a text in which every one begins with an empty line and ``Human:`` or ``Assistant:``."""
    parts = _SPEAKER.split(text)[1:]
    spoken = zip(parts[::2], parts[1::2], strict=True)
    return tuple(Message(_ROLES[speaker], said.strip()) for speaker, said in spoken)  # type: ignore[arg-type]


def _place(text: str, purpose: str) -> float:
    """Where something stands between 0 and 1, by its hash: the same in every run, another for every purpose."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {text}".encode()).digest()[:8], "big") / 2**64
