"""What a training is given: people's pairs, and further ones that a judge of their taste orders.

Puts the steps between the split feedback and the trainer in their order: fit the judge, let the policy that training
starts from answer again, let the judge order the replies, turn all pairs into ids. It trains nothing and looks at
nothing held out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from training.base import BaseModel
from training.bradley_terry import PreferenceJudge, fit_judge
from training.evaluation import base_features
from training.journal import Journal
from training.labelling import Pool, judged_rows, sample_pools
from training.pairs import EncodedPair, encode_pairs
from training.settings import TrainingSettings
from training.trigger import explain_dropped
from training.views import PreferenceRow, PreferenceView

log = logging.getLogger("training")
_CONTINUED = "continued"


@dataclass(frozen=True)
class Lesson:
    """What is trained on: people's pairs that fit the context and the judge's, as ids, and the judge itself.

    `pools` holds what the policy that training starts from replied to training prompts; empty without a judged pair.
    """

    pairs: list[EncodedPair]
    people: int
    feedback_ids: list[str]
    judge: PreferenceJudge
    pools: list[Pool]


def prepare_lesson(
    base: BaseModel,
    view: PreferenceView,
    *,
    settings: TrainingSettings,
    continued: Path | None,
    journal: Journal,
) -> Lesson:
    """Fit the judge on people's pairs, let it order further replies of the model, and make ids of all pairs."""
    journal.advance(0.3, "Fitting a judge on the comparisons")
    judge = fit_judge(view.train, base_features(base, base.model, each_step=journal.check))
    further: list[PreferenceRow] = []
    pools: list[Pool] = []
    if judge.has_opinion:
        journal.advance(0.4, "Sampling further replies for the judge to order")
        pools = _sample(base, view, settings=settings, continued=continued, journal=journal)
        journal.advance(0.9, "Ordering them")
        further = judged_rows(judge, pools, settings=settings)
    context = min(base.context_tokens, settings.context_tokens)
    kept, pairs = encode_pairs(base.tokenizer, view.train, context_tokens=context)
    if len(kept) < len(view.train):
        log.info("Left out %s.", explain_dropped({"too_long": len(view.train) - len(kept)}))
    _, more = encode_pairs(base.tokenizer, further, context_tokens=context)
    log.info("The judge added %d pairs of the model's own replies.", len(more))
    return Lesson([*pairs, *more], len(pairs), [row.feedback_id for row in kept], judge, pools)


def _sample(
    base: BaseModel,
    view: PreferenceView,
    *,
    settings: TrainingSettings,
    continued: Path | None,
    journal: Journal,
) -> list[Pool]:
    """Replies of the policy that training starts from: the base, or the adapter that is continued."""

    prompts = view.train_prompts
    if continued is None:
        return sample_pools(
            base, base.model, prompts, adapter=None, settings=settings, each_step=journal.check
        )
    from peft import PeftModel

    model = PeftModel.from_pretrained(base.model, str(continued), _CONTINUED)
    pools = sample_pools(base, model, prompts, adapter=_CONTINUED, settings=settings, each_step=journal.check)
    model.unload()
    return pools
