"""How much of what was learned is worth its price: the smallest scale of an adapter that keeps what people asked for.

Weights between the base and a fine-tuned model often have most of the gain and little of the loss of the latter
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"); for an adapter of the base those are its matrices B,
scaled. So the adapter is scaled down step by step while a judge of people's taste finds its replies nearly as much
better than the base's, or while it still forgets too much. Only training prompts are asked. It trains nothing and
decides nothing about publishing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from training.base import BaseModel
from training.base_features import base_features
from training.bradley_terry import PreferenceJudge
from training.generation import Decoding, forgotten_share, sample, speaking_as
from training.labelling import Pool
from training.pairs import encode_completion
from training.prompt import encode_prompt
from training.settings import TrainingSettings

log = logging.getLogger("training")
SCALES = (1.0, 0.8, 0.6, 0.45)
_TOLERANCE = 0.02
"""Of the judged win rate: so much less than at full scale is as good, and about what chance makes of it."""
_PROMPTS = 48


@dataclass(frozen=True)
class Restraint:
    """The scale that was chosen, and at each scale tried: the judged win rate over the base, and what is forgotten."""

    scale: float
    tried: dict[float, tuple[float, float]]


def restrain(
    base: BaseModel,
    model: Any,
    pools: Sequence[Pool],
    judge: PreferenceJudge,
    *,
    adapter: str,
    settings: TrainingSettings,
    check: Callable[[], None],
) -> Restraint:
    """Scale `adapter` of `model` in place as far down as its gain allows. Full scale without pools or an opinion.

    The adapter must have been trained from the base. `check` is called often and may raise to stop.
    """
    asked = [pool for pool in pools if pool.replies][:_PROMPTS]
    if not asked or not judge.has_opinion:
        return Restraint(1.0, {})
    trial = _Trial(base, model, asked, judge, adapter=adapter, settings=settings, check=check)
    tried = {SCALES[0]: trial.at(SCALES[0])}
    chosen = SCALES[0]
    least = tried[chosen][0] - _TOLERANCE
    for scale in SCALES[1:]:
        tried[scale] = trial.at(scale)
        if tried[scale][0] < least and tried[chosen][1] <= settings.restrain_forgotten:
            break
        chosen = scale
    trial.set(chosen)
    log.info(
        "Scaled the adapter to %g: %s", chosen, {s: (round(w, 3), round(f, 4)) for s, (w, f) in tried.items()}
    )
    return Restraint(chosen, tried)


class _Trial:
    """Answers the same prompts at any scale of the adapter, with the same seeds."""

    def __init__(
        self,
        base: BaseModel,
        model: Any,
        pools: Sequence[Pool],
        judge: PreferenceJudge,
        *,
        adapter: str,
        settings: TrainingSettings,
        check: Callable[[], None],
    ) -> None:
        self._model, self._tokenizer, self._pools, self._adapter, self._check = (
            model,
            base.tokenizer,
            pools,
            adapter,
            check,
        )
        self._judge = judge.seeing_through(base_features(base, model, each_step=check))
        self._processes = base.processes
        self._prompts = [list(encode_prompt(base.tokenizer, pool.prompt)) for pool in pools]
        self._replies = [encode_completion(base.tokenizer, pool.replies[0]) for pool in pools]
        self._decoding = Decoding(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            ends=base.ends,
            pad=base.tokenizer.pad_token_id,
            seed=settings.seed + 2,
        )
        self._full = {
            name: value.detach().clone()
            for name, value in model.named_parameters()
            if "lora_B" in name and f".{adapter}." in name
        }

    def set(self, scale: float) -> None:
        """Scale the adapter to `scale` of what was trained."""
        with torch.no_grad():
            for name, value in self._model.named_parameters():
                if name in self._full:
                    value.copy_(scale * self._full[name])

    def at(self, scale: float) -> tuple[float, float]:
        """(win rate over the base's replies, share forgotten) at `scale`."""
        self.set(scale)
        pad = self._decoding.pad
        forgotten = forgotten_share(
            self._model, self._prompts, self._replies, of=None, to=self._adapter, pad=pad
        )
        with speaking_as(self._model, self._adapter):
            ids = sample(
                self._model,
                self._prompts,
                decoding=self._decoding,
                each_step=self._check,
                processes=self._processes,
            )
        texts = [self._tokenizer.decode(reply, skip_special_tokens=True) for reply in ids]
        # All at once is quicker than one by one as they meet the others.
        self._judge.scores([(pool.prompt, text) for pool, text in zip(self._pools, texts, strict=True)])
        wins = [
            fmean(self._judge(pool.prompt, text, other) for other in pool.replies)
            for pool, text in zip(self._pools, texts, strict=True)
        ]
        return self._processes.led(lambda: (fmean(wins), forgotten or 0.0))
