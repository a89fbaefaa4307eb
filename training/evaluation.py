"""Examines a candidate on conversations that it was not trained on, beside what is served and beside the
base.

Four questions: does it order held-out pairs as people did, would its replies be preferred, are they still
language, and do they still speak of what was asked? Everybody answers the same held-out prompts with the
chat's own sampling and the same seeds, in one process with the base that is loaded already. It decides
nothing (that is the gate's), writes nothing, and sees no training pair; the judge is handed to it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, TypeVar

from torch import Tensor

from memory.schema import BASE_VERSION, Message
from training.base import BaseModel
from training.base_features import base_features
from training.bradley_terry import PreferenceJudge
from training.generation import (
    Decoding,
    forgotten_share,
    kl_per_reply,
    sample,
    speaking_as,
    token_logprobs,
)
from training.judge import Contest, Estimate, Judge, wilson, win_rate
from training.pairs import encode_replies
from training.prompt import encode_prompt
from training.rated import Contrast
from training.replies import on_topic, reply_figures
from training.report import EvaluationReport, ReplyFigures, SampleReply
from training.settings import TrainingSettings
from training.views import PreferenceView

__all__ = ["EvaluationReport", "Version", "base_features", "choose_prompts", "evaluate"]

Prompt = tuple[Message, ...]
Ids = Sequence[int]
T = TypeVar("T")
_MOST_REPLIES = 4
"""Most replies sampled to one prompt where there are few prompts."""
_SAMPLES = 6


@dataclass(frozen=True)
class Version:
    """A version as the model in memory knows it: `adapter` is the name of the loaded adapter, None for the
    base.
    """

    name: str
    adapter: str | None


@dataclass(frozen=True)
class Answers:
    """One version's replies, in the order of the questions, and what they look like."""

    ids: list[list[int]]
    texts: list[str]
    figures: ReplyFigures


def evaluate(
    base: BaseModel,
    model: Any,
    view: PreferenceView,
    *,
    candidate: Version,
    served: Version,
    reference: Version,
    judge: PreferenceJudge | None,
    settings: TrainingSettings,
    each_step: Callable[[], None] = lambda: None,
    on_progress: Callable[[float, str], None] = lambda share, message: None,
) -> EvaluationReport:
    """Measure `candidate` against `served` and the base on the held-out part of `view`.

    `model` holds the adapters; `reference` is what the candidate was trained against, for its implicit reward
    (Rafailov et al. 2023, section 4). Without a `judge` there are no win rates. `each_step` is called often and may
    raise to stop. `on_progress` gets a share done and words.
    """
    questions = choose_prompts(view.heldout_prompts, most=settings.eval_prompts, seed=settings.seed)
    examiner = Examiner(base, model, questions, settings=settings, each_step=each_step)
    on_progress(0.0, "Asking the candidate what people asked before")
    new = examiner.answer(candidate)
    on_progress(0.35, f"Asking {served.name} the same")
    old = examiner.answer(served)
    on_progress(0.6, "Asking the base model the same")
    ground = Version(BASE_VERSION, None)
    plain = old if served.adapter is None else examiner.answer(ground)
    on_progress(0.7, f"Asking {served.name} once more")
    again = examiner.answer(served, seed=settings.seed + 1).texts
    on_progress(0.75, "Comparing the replies")
    if judge is not None:
        judge = judge.seeing_through(base_features(base, model, each_step=each_step))
    kl_base = examiner.divergence(new, of=candidate, to=ground)
    kl_served = kl_base if served.adapter is None else examiner.divergence(new, of=candidate, to=served)
    ordered = examiner.ordered(view.contrasts, candidate=candidate, reference=reference)
    agreed = judge.agreement(view.contrasts) if judge else []
    on_progress(0.9, "Putting it together")
    return EvaluationReport(
        served_version=served.name,
        training_pairs=len(view.train),
        heldout_pairs=len(ordered),
        heldout_prompts=len(set(questions)),
        **_share("preference_accuracy", ordered),
        **_share("judge_accuracy", agreed),
        **_share("taste_accuracy", [*agreed, *judge.left_out] if judge else []),
        **_win("win_rate_served", examiner.contest(judge, new, old)),
        **_win("win_rate_base", examiner.contest(judge, new, plain)),
        kl_base=kl_base,
        kl_served=kl_served,
        fluency_drop=_difference(old.figures.fluency, new.figures.fluency),
        forgotten=examiner.forgotten(old, by=candidate, of=served),
        on_topic=_mean(kept := on_topic(new.texts, again, questions=examiner.questions)),
        on_topic_high=_known(wilson(sum(kept), len(kept))[1]),
        on_topic_served=_mean(on_topic(old.texts, again, questions=examiner.questions)),
        candidate=new.figures,
        served=old.figures,
        base=plain.figures,
        samples=_samples(questions, new, old, plain, judge=judge),
    )


def choose_prompts(prompts: Sequence[Prompt], *, most: int, seed: int) -> tuple[Prompt, ...]:
    """The questions to put: up to `most` prompts in an order fixed by `seed`; few prompts are put several
    times each.
    """

    def draw(prompt: Prompt) -> bytes:
        return hashlib.sha256(repr((seed, prompt)).encode()).digest()

    chosen = sorted(prompts, key=draw)[:most]
    times = min(_MOST_REPLIES, most // len(chosen)) if chosen else 0
    return tuple(prompt for prompt in chosen for _ in range(times))


class Examiner:
    """Puts the same questions to the versions that `model` holds, and measures their answers."""

    def __init__(
        self,
        base: BaseModel,
        model: Any,
        questions: Sequence[Prompt],
        *,
        settings: TrainingSettings,
        each_step: Callable[[], None],
    ) -> None:
        self._model, self._tokenizer, self.questions = model, base.tokenizer, tuple(questions)
        self._context, self._each_step = min(base.context_tokens, settings.context_tokens), each_step
        self._processes = base.processes
        self._prompts = [list(encode_prompt(base.tokenizer, prompt)) for prompt in questions]
        self._decoding = Decoding(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            ends=base.ends,
            pad=base.tokenizer.pad_token_id,
            seed=settings.seed,
        )

    def answer(self, version: Version, *, seed: int | None = None) -> Answers:
        """Sample a reply of `version` to every question (with the settings' seed, or `seed`), and look at them."""
        decoding = self._decoding if seed is None else replace(self._decoding, seed=seed)
        with speaking_as(self._model, version.adapter):
            ids = sample(
                self._model,
                self._prompts,
                decoding=decoding,
                each_step=self._each_step,
                processes=self._processes,
            )
        with speaking_as(self._model, None):
            scores = self._divided(self._logprobs, self._prompts, ids)
        ended = [reply[-1] in self._decoding.ends for reply in ids]
        texts = [
            self._tokenizer.decode(reply[:-1] if whole else reply, skip_special_tokens=True)
            for reply, whole in zip(ids, ended, strict=True)
        ]
        figures = reply_figures(
            texts,
            questions=self.questions,
            tokens=[len(reply) for reply in ids],
            ended=ended,
            logprobs=[score.tolist() for score in scores],
        )
        return Answers(ids, texts, figures)

    def contest(self, judge: PreferenceJudge | None, ours: Answers, theirs: Answers) -> Estimate:
        """How often `ours` win against `theirs` in the eyes of the judge; not a number without a judge."""
        if judge is None:
            return Estimate(math.nan, math.nan, 0)
        for answers in (ours, theirs):  # all at once is quicker than one by one as they meet
            judge.scores(list(zip(self.questions, answers.texts, strict=True)))
        pairs = zip(self.questions, ours.texts, theirs.texts, strict=True)
        return win_rate(judge, [Contest(*pair) for pair in pairs])

    def divergence(self, answers: Answers, *, of: Version, to: Version) -> float | None:
        """Mean KL(of || to) in nats a reply, along the answers of `of`; None without an answer."""
        self._each_step()

        def compute(prompts: Sequence[Ids], replies: Sequence[Ids]) -> list[float]:
            return kl_per_reply(
                self._model, prompts, replies, of=of.adapter, to=to.adapter, pad=self._decoding.pad
            )

        divergences = self._divided(compute, self._prompts, answers.ids)
        return fmean(divergences) if divergences else None

    def forgotten(self, answers: Answers, *, by: Version, of: Version) -> float | None:
        """Share of what `of` is sure of, along its own answers, that `by` would no longer say."""
        self._each_step()
        return forgotten_share(
            self._model, self._prompts, answers.ids, of=of.adapter, to=by.adapter, pad=self._decoding.pad
        )

    def ordered(self, contrasts: Sequence[Contrast], *, candidate: Version, reference: Version) -> list[bool]:
        """For each contrast that fits the context: is the implicit reward of the better reply the higher one?"""
        sides = [(contrast.better, contrast.worse) for contrast in contrasts]
        encoded = [encode_replies(self._tokenizer, pair, context_tokens=self._context)[1] for pair in sides]
        replies = [reply for pair in encoded if len(pair) == 2 for reply in pair]
        ratios = self._ratio(
            [reply.prompt for reply in replies], [reply.reply for reply in replies], candidate, reference
        )
        return [better > worse for better, worse in zip(ratios[::2], ratios[1::2], strict=True)]

    def _ratio(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        candidate: Version,
        reference: Version,
    ) -> list[float]:
        """log pi(reply) - log pi_ref(reply), in nats, for each reply."""
        self._each_step()
        with speaking_as(self._model, candidate.adapter):
            policy = self._divided(self._logprobs, prompts, replies)
        with speaking_as(self._model, reference.adapter):
            anchor = self._divided(self._logprobs, prompts, replies)
        return [float(ours.sum() - theirs.sum()) for ours, theirs in zip(policy, anchor, strict=True)]

    def _logprobs(self, prompts: Sequence[Ids], replies: Sequence[Ids]) -> list[Tensor]:
        return token_logprobs(self._model, prompts, replies, pad=self._decoding.pad)

    def _divided(
        self,
        compute: Callable[[Sequence[Ids], Sequence[Ids]], list[T]],
        prompts: Sequence[Ids],
        replies: Sequence[Ids],
    ) -> list[T]:
        """What `compute` finds for each prompt and its reply, each process computing its share of them."""
        found = compute(self._processes.mine(prompts), self._processes.mine(replies))
        return self._processes.gathered(found)


def _samples(
    questions: Sequence[Prompt], new: Answers, old: Answers, plain: Answers, *, judge: Judge | None
) -> tuple[SampleReply, ...]:
    first = {question: index for index, question in reversed(list(enumerate(questions)))}
    shown = sorted(first.values())[:_SAMPLES]
    return tuple(
        SampleReply(
            prompt=questions[index][-1].content,
            candidate=new.texts[index],
            served=old.texts[index],
            base=plain.texts[index],
            preferred=judge(questions[index], new.texts[index], old.texts[index]) if judge else None,
        )
        for index in shown
    )


def _share(name: str, outcomes: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson(sum(outcomes), len(outcomes))
    return {name: _mean(outcomes), f"{name}_low": _known(low), f"{name}_high": _known(high)}


def _mean(outcomes: Sequence[bool]) -> float | None:
    return fmean(outcomes) if outcomes else None


def _win(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: _known(estimate.mean), f"{name}_error": _known(estimate.error)}


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
