"""More pairs to learn from than people have judged: replies of the model itself, ordered by the judge of their taste.

A few dozen pairs tell a judge clearly what people like, but leave a policy that is trained on them alone to learn much
else by heart. So the starting policy answers the training prompts several times more, and where the judge is sure which
of two replies is better, that is a pair as well (statistical rejection sampling: Liu et al. 2024, "RSO"). Both sides
are what the model says anyway, which keeps the trained policy near it. No person judged these pairs: they carry no
feedback id.

Only training prompts are used. It trains nothing and knows no ledger.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from memory.schema import Message
from training.base import BaseModel
from training.bradley_terry import PreferenceJudge
from training.generation import Decoding, sample, speaking_as
from training.prompt import encode_prompt
from training.settings import TrainingSettings
from training.views import PreferenceRow

Prompt = tuple[Message, ...]
_MOST_REPLIES = 12
"""Most replies to one prompt: more of them are alike."""
_FEW_PROMPTS = 24
"""Up to so many prompts, all are used, however long."""
_SPARE = 2.5
"""Replies sampled for every pair wanted; a pair takes two, and not all are decided."""


@dataclass(frozen=True)
class Pool:
    """Whole replies to one prompt."""

    prompt: Prompt
    replies: tuple[str, ...]


def sample_pools(
    base: BaseModel,
    model: Any,
    prompts: Sequence[Prompt],
    *,
    adapter: str | None,
    settings: TrainingSettings,
    each_step: Callable[[], None] = lambda: None,
) -> list[Pool]:
    """Answer the prompts with `model` under `adapter` as often as ``settings.judged_pairs`` asks for."""
    if not prompts or not settings.judged_pairs:
        return []
    asked = _choose(prompts, settings)
    times = min(_MOST_REPLIES, math.ceil(_SPARE * settings.judged_pairs / len(asked)))
    return pools_of(
        base, model, asked, times=times, adapter=adapter, seed=1, settings=settings, each_step=each_step
    )


def pools_of(
    base: BaseModel,
    model: Any,
    asked: Sequence[Prompt],
    *,
    times: int,
    adapter: str | None,
    seed: int,
    settings: TrainingSettings,
    each_step: Callable[[], None] = lambda: None,
) -> list[Pool]:
    """Answer each prompt `times` times with `model` under `adapter`; `seed` is added to the settings' own.

    Replies that the length limit cut off are left out, and of equal ones all but one.
    """
    decoding = Decoding(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        ends=base.ends,
        pad=base.tokenizer.pad_token_id,
        seed=settings.seed + seed,
    )
    ids = [encode_prompt(base.tokenizer, prompt) for prompt in asked for _ in range(times)]
    with speaking_as(model, adapter):
        replies = sample(model, ids, decoding=decoding, each_step=each_step, processes=base.processes)
    texts = [
        base.tokenizer.decode(reply[:-1], skip_special_tokens=True) if reply[-1] in decoding.ends else ""
        for reply in replies
    ]
    return [
        Pool(
            prompt,
            tuple(dict.fromkeys(text for text in texts[at * times : (at + 1) * times] if text.strip())),
        )
        for at, prompt in enumerate(asked)
    ]


def judged_rows(
    judge: PreferenceJudge, pools: Sequence[Pool], *, settings: TrainingSettings, part: int = 2
) -> list[PreferenceRow]:
    """Pairs of which the judge is sure: the best reply of a pool with the worst, the second with the second worst, ...

    Only the best 1/`part` of a pool are preferred to others. At most ``settings.judged_pairs``, the surest first. None
    from a judge without an opinion.
    """
    if not judge.has_opinion:
        return []
    least = math.log(settings.judge_confidence / (1 - settings.judge_confidence))
    found: list[tuple[float, PreferenceRow]] = []
    for pool in pools:
        scores = judge.scores([(pool.prompt, reply) for reply in pool.replies])
        ranked = sorted(zip(scores, pool.replies, strict=True), reverse=True)
        for better, worse in zip(ranked[: len(ranked) // part], ranked[::-1], strict=False):
            odds = better[0] - worse[0]
            if odds >= least:
                found.append((odds, PreferenceRow(pool.prompt, better[1], worse[1], "", "")))
    found.sort(key=lambda item: -item[0])
    return [row for _, row in found[: settings.judged_pairs]]


def _choose(prompts: Sequence[Prompt], settings: TrainingSettings) -> list[Prompt]:
    """The shorter half of the prompts (long histories cost most and teach the same), or fewer in an order fixed by the
    seed, so that each gets at least four replies.
    """

    def draw(prompt: Prompt) -> bytes:
        return hashlib.sha256(repr((settings.seed, prompt)).encode()).digest()

    different = sorted(
        dict.fromkeys(prompts), key=lambda prompt: sum(len(message.content) for message in prompt)
    )
    shorter = different[: max(_FEW_PROMPTS, len(different) // 2)]
    most = max(1, math.floor(_SPARE * settings.judged_pairs / 4))
    return sorted(shorter, key=draw)[:most]
