"""What a training is given: what people judged and wrote, and further pairs that a judge of their taste orders.

Puts the steps between the split feedback and the trainer in their order: fit the judge, let the policy that training
starts from answer again, let the judge order the replies, turn everything into ids. It trains nothing and looks at
nothing held out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from training.base import BaseModel
from training.base_features import base_features
from training.bradley_terry import PreferenceJudge, fit_judge
from training.journal import Journal
from training.labelling import Pool, judged_rows, sample_pools
from training.pairs import EncodedPair, EncodedReply, encode_pairs, encode_replies
from training.settings import TrainingSettings
from training.trigger import explain_dropped
from training.views import PreferenceRow, PreferenceView

log = logging.getLogger("training")
_CONTINUED = "continued"


@dataclass(frozen=True)
class Lesson:
    """What is trained on, as far as it fits the context, as ids; and the judge itself.

    The first `people` of `pairs` are people's, the others the judge's. `rated` are replies with a thumb and `written`
    those that people wrote themselves. `feedback_ids` name all that the judge or the training learns from. `pools`
    holds what the policy that training starts from replied to training prompts; empty without a judged pair.
    """

    pairs: list[EncodedPair]
    people: int
    feedback_ids: list[str]
    judge: PreferenceJudge
    pools: list[Pool]
    rated: list[EncodedReply] = field(default_factory=list)
    written: list[EncodedReply] = field(default_factory=list)


def prepare_lesson(
    base: BaseModel,
    view: PreferenceView,
    *,
    settings: TrainingSettings,
    continued: Path | None,
    journal: Journal,
) -> Lesson:
    """Fit the judge on what people said, let it order further replies of the model, and make ids of everything."""
    journal.advance(0.3, "Fitting a judge on what people said")
    features = base_features(base, base.model, each_step=journal.check)
    judge = fit_judge(view.train, features, rated=view.rated)
    further: list[PreferenceRow] = []
    pools: list[Pool] = []
    if judge.has_opinion:
        journal.advance(0.4, "Sampling further replies for the judge to order")
        pools = _sample(base, view, settings=settings, continued=continued, journal=journal)
        journal.advance(0.9, "Ordering them")
        sure = judged_rows(judge, pools, settings=settings)
        further = base.processes.led(lambda: sure)
    context = min(base.context_tokens, settings.context_tokens)
    kept, pairs = encode_pairs(base.tokenizer, view.train, context_tokens=context)
    if len(kept) < len(view.train):
        log.info("Left out %s.", explain_dropped({"too_long": len(view.train) - len(kept)}))
    _, more = encode_pairs(base.tokenizer, further, context_tokens=context)
    log.info("The judge added %d pairs of the model's own replies.", len(more))
    thumbs, rated = encode_replies(base.tokenizer, view.rated, context_tokens=context)
    corrections, written = encode_replies(base.tokenizer, view.written, context_tokens=context)
    return Lesson(
        [*pairs, *more],
        len(pairs),
        [row.feedback_id for row in kept] + [row.feedback_id for row in (*thumbs, *corrections)],
        judge,
        pools,
        rated,
        written,
    )


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
