"""Judgements of simulated people in bulk: many dialogues with two replies a turn, and what a rater thinks of them.

The quick way to a ledger's worth of feedback, for studies that need hundreds of them: replies are sampled in batches
by the base alone, once for each seed, and every rater votes on the same pairs. It differs from a real chat in one
thing: a dialogue goes on with reply A, whoever won. The studio has no part in it; `benchmarks.loop` drives the whole of
it, and is slower. Nothing here trains or measures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.editing import edit_of
from benchmarks.raters import Rater
from benchmarks.simulation import scripts
from memory.schema import BASE_VERSION, Comparison, Correction, LabeledComparison, Message, Rating, Turn
from training.base import BaseModel
from training.generation import Decoding, sample, speaking_as
from training.prompt import encode_prompt
from training.settings import TrainingSettings
from training.views import Feedback

Prompt = tuple[Message, ...]
_BLOCK = 110
"""Messages drawn at a time. A block follows from its seed and number, so the first pairs of many are those of few."""


@dataclass(frozen=True)
class Reply:
    """A sampled reply; not `finished` where the length limit cut it off."""

    text: str
    finished: bool


@dataclass(frozen=True)
class Pair:
    """Two different replies of the base to one prompt, in a conversation."""

    conversation_id: str
    prompt: Prompt
    reply_A: Reply
    reply_B: Reply


def talk(base: BaseModel, *, pairs: int, seed: int, settings: TrainingSettings, folder: Path) -> list[Pair]:
    """The first `pairs` pairs of `seed`, conversation by conversation. Blocks drawn before are read from `folder`."""
    found: list[Pair] = []
    number = 0
    while len(found) < pairs:
        named = (base.identity, settings.temperature, settings.top_p, settings.max_new_tokens, seed, number)
        file = folder / f"pairs-{'-'.join(map(str, named))}.jsonl"
        if not file.exists():
            _write(file, _draw(base, seed=seed, block=number, settings=settings))
        found += [pair for pair in _read(file) if pair.reply_A.text.strip() != pair.reply_B.text.strip()]
        number += 1
    return found[:pairs]


def answer(
    base: BaseModel,
    model: Any,
    prompts: Sequence[Prompt],
    *,
    adapter: str | None,
    seed: int,
    settings: TrainingSettings,
) -> list[Reply]:
    """A reply to each prompt by `model` under `adapter` (None: the base), sampled as the chat does."""
    decoding = Decoding(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        ends=base.ends,
        pad=base.tokenizer.pad_token_id,
        seed=seed,
    )
    ids = [encode_prompt(base.tokenizer, prompt) for prompt in prompts]
    with speaking_as(model, adapter):
        replies = sample(model, ids, decoding=decoding)
    finished = [reply[-1] in base.ends for reply in replies]
    return [
        Reply(base.tokenizer.decode(reply[:-1] if whole else reply, skip_special_tokens=True), whole)
        for reply, whole in zip(replies, finished, strict=True)
    ]


def judged(pairs: Sequence[Pair], rater: Rater) -> Feedback:
    """What `rater` votes on `pairs`, as the feedback that a retraining reads; ties are among it."""
    comparisons: list[LabeledComparison] = []
    for number, pair in enumerate(pairs):
        comparison = Comparison(
            id=str(number),
            conversation_id=pair.conversation_id,
            prompt=pair.prompt,
            turn_A=f"{number}A",
            turn_B=f"{number}B",
            completion_A=pair.reply_A.text,
            completion_B=pair.reply_B.text,
            version_A=BASE_VERSION,
            version_B=BASE_VERSION,
            shown_first="A",
            created_at=float(number),
        )
        label = rater.vote(pair.prompt[-1].content, pair.reply_A.text, pair.reply_B.text)
        comparisons.append(
            LabeledComparison(comparison, label, rater.name, seconds=1.0, created_at=float(number))
        )
    return Feedback(comparisons=tuple(comparisons), turns=_turns(pairs))


def thumbed(pairs: Sequence[Pair], rater: Rater) -> Feedback:
    """A thumb of `rater` on both replies of every pair, as the feedback that a retraining reads."""
    turns = _turns(pairs)
    ratings = [
        Rating(turn.id, rater.thumb(turn.prompt[-1].content, turn.completion), rater.name, float(number))
        for number, turn in enumerate(turns.values())
    ]
    return Feedback(ratings=tuple(ratings), turns=turns)


def corrected(pairs: Sequence[Pair], rater: Rater) -> Feedback:
    """Reply A of every pair liked by `rater`, or rewritten where it is not good enough, as the feedback that a
    retraining reads; a rewriting that does not help is left out."""
    turns = {name: turn for name, turn in _turns(pairs).items() if name.endswith("A")}
    ratings: list[Rating] = []
    corrections: list[Correction] = []
    for number, turn in enumerate(turns.values()):
        asked = turn.prompt[-1].content
        if rater.satisfied(asked, turn.completion):
            ratings.append(Rating(turn.id, 1, rater.name, float(number)))
        elif rater.satisfied(asked, edited := edit_of(rater)(turn.completion)) and edited.strip():
            corrections.append(Correction(turn.id, edited, rater.name, float(number)))
    return Feedback(ratings=tuple(ratings), corrections=tuple(corrections), turns=turns)


def _turns(pairs: Sequence[Pair]) -> dict[str, Turn]:
    """Both replies of every pair as turns, by their ids."""
    return {
        f"{number}{side}": _turn(f"{number}{side}", pair, reply)
        for number, pair in enumerate(pairs)
        for side, reply in (("A", pair.reply_A), ("B", pair.reply_B))
    }


def _turn(number: str, pair: Pair, reply: Reply) -> Turn:
    return Turn(
        id=number,
        conversation_id=pair.conversation_id,
        prompt=pair.prompt,
        completion=reply.text,
        policy_version=BASE_VERSION,
        fingerprint="",
        sampling={},
        prompt_tokens=0,
        completion_tokens=0,
        finish="stop" if reply.finished else "length",
        created_at=0.0,
    )


def _draw(base: BaseModel, *, seed: int, block: int, settings: TrainingSettings) -> list[Pair]:
    """One block of dialogues, all held at the same time, turn by turn."""
    own_seed = seed + 1_000 * block
    plans = scripts(_BLOCK, seed=own_seed)
    said = [messages for _, messages in plans]
    histories = [[Message("system", system)] if system else [] for system, _ in plans]
    pairs: list[list[Pair]] = [[] for _ in plans]
    for turn in range(max(map(len, said))):
        going = [index for index, messages in enumerate(said) if turn < len(messages)]
        for index in going:
            histories[index].append(Message("user", said[index][turn]))
        prompts = [tuple(histories[index]) for index in going]
        sides = [
            answer(
                base,
                base.model,
                prompts,
                adapter=None,
                seed=100 * own_seed + 2 * turn + side,
                settings=settings,
            )
            for side in range(2)
        ]
        for index, prompt, first, second in zip(going, prompts, *sides, strict=True):
            pairs[index].append(Pair(f"{seed}-{block}-{index}", prompt, first, second))
            histories[index].append(Message("assistant", first.text))
    return [pair for conversation in pairs for pair in conversation]


def _write(file: Path, pairs: Sequence[Pair]) -> None:
    """Write one JSON line a pair, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    lines = (json.dumps(asdict(pair)) for pair in pairs)
    unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(unfinished, file)


def _read(file: Path) -> list[Pair]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        Pair(
            conversation_id=row["conversation_id"],
            prompt=tuple(Message(**message) for message in row["prompt"]),
            reply_A=Reply(**row["reply_A"]),
            reply_B=Reply(**row["reply_B"]),
        )
        for row in rows
    ]
