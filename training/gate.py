"""May the candidate replace what is served? A pure function of the evaluation, with a reason for every
answer.

It trains nothing, measures nothing, and knows neither models nor files. A figure that is missing or not a
number fails its check: the gate never opens on what was not measured. Checks on the replies themselves
compare with a limit *or* with what is served now, whichever is more lenient, because a fault that people live
with already is no reason to refuse something no worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from training.report import EvaluationReport
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Check:
    """One condition. `value` was measured (None: could not be), `threshold` is what it was held against."""

    name: str
    value: float | None
    threshold: float
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The decision, every check behind it, and a summary for a person."""

    promote: bool
    checks: tuple[Check, ...]
    summary: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Verdict:
        """The verdict back from `to_dict`."""
        checks = tuple(Check(**check) for check in values["checks"])
        return cls(promote=values["promote"], checks=checks, summary=values["summary"])


def decide(report: EvaluationReport, settings: TrainingSettings) -> Verdict:
    """Promote if every check passes; otherwise reject, with the sentences of those that failed."""
    checks = (*_evidence(report, settings), *_liking(report, settings), *_language(report, settings))
    failed = [check.sentence for check in checks if not check.passed]
    if failed:
        return Verdict(False, checks, "Not promoted. " + " ".join(failed))
    win = _percent(report.win_rate_served)
    summary = (
        f"Promoted: preferred to {report.served_version} in {win} of held-out replies, and it orders "
        f"{_percent(report.preference_accuracy)} of {report.heldout_pairs} held-out choices as people did."
    )
    return Verdict(True, checks, summary)


def _evidence(report: EvaluationReport, settings: TrainingSettings) -> tuple[Check, ...]:
    """Enough held-out pairs and prompts, and ratings in which a judge finds more than a coin would.

    The judge must foretell pairs that it was not fitted on better than chance at the lower end of the 95 % interval. So
    ratings without any taste in them pass in one case of forty, and the win rates that the same judge gives are those
    of a judge who has shown what he can.
    """
    least = settings.min_heldout_pairs
    low, high = _percent(report.taste_accuracy_low), _percent(report.taste_accuracy_high)
    taste = f"{_percent(report.taste_accuracy)} ({low} to {high})"
    return (
        _check(
            "heldout_pairs",
            report.heldout_pairs,
            least,
            good=f"{report.heldout_pairs} comparisons were kept aside to examine it by.",
            bad=f"Too little to examine it by: {report.heldout_pairs} pairs kept aside, {least} needed.",
        ),
        _check(
            "heldout_prompts",
            report.heldout_prompts,
            least,
            good=f"It answered {report.heldout_prompts} prompts that it had not been trained on.",
            bad=f"Too little to examine it by: {report.heldout_prompts} prompts kept aside, {least} needed.",
        ),
        _check(
            "taste",
            report.taste_accuracy_low,
            0.5,
            good=f"There is a taste to learn: choices left out in turn are foretold in {taste}.",
            bad=f"No clear taste speaks from the ratings: choices left out in turn are foretold in {taste}, which "
            "a coin may reach too. They may contradict each other, or more are needed.",
        ),
    )


def _liking(report: EvaluationReport, settings: TrainingSettings) -> tuple[Check, ...]:
    """Does it do what people asked for?

    The accuracy is judged by the upper end of its interval: half of a handful of pairs can be ordered wrongly by
    chance, and that alone does not speak against a candidate. The win rate, over many more replies, is judged by its
    lower end.
    """
    accuracy, win, error = report.preference_accuracy, report.win_rate_served, report.win_rate_served_error
    sure = None if win is None or error is None else win - error
    spread = f"{_percent(win)} (give or take {_percent(error)})"
    return (
        _check(
            "preference_accuracy",
            report.preference_accuracy_high,
            settings.min_preference_accuracy,
            good=f"It orders {_percent(accuracy)} of {report.heldout_pairs} held-out choices as people did.",
            bad=f"It did not learn what people prefer: it orders {_percent(accuracy)} of {report.heldout_pairs} "
            f"held-out choices as they did, at least {_percent(settings.min_preference_accuracy)} is asked.",
        ),
        _check(
            "win_rate",
            sure,
            settings.min_win_rate,
            good=f"Its replies are preferred to those of {report.served_version} in {spread}.",
            bad=f"It is not clearly better than {report.served_version}: its replies are preferred in "
            f"{spread}, more than {_percent(settings.min_win_rate)} is asked with that taken off.",
        ),
    )


def _language(report: EvaluationReport, settings: TrainingSettings) -> tuple[Check, ...]:
    """Is what it says still language, and still the model that was asked to change a little?"""
    candidate, served = report.candidate, report.served
    drop, kl, topic = report.fluency_drop, report.kl_base, report.on_topic_served
    return (
        _check(
            "fluency_drop",
            drop,
            settings.max_fluency_drop,
            at_most=True,
            good="Replies are as fluent as they were.",
            bad=f"Replies became less fluent: the base finds them {_number(drop)} nats a token less likely "
            f"than the served ones, at most {settings.max_fluency_drop:g} is allowed.",
        ),
        _check(
            "forgotten",
            report.forgotten,
            settings.max_forgotten,
            at_most=True,
            good=f"It forgot {_fine(report.forgotten)} of what {report.served_version} is sure of.",
            bad=f"It forgot {_fine(report.forgotten)} of what {report.served_version} is sure of, at most "
            f"{_fine(settings.max_forgotten)} may be.",
        ),
        _check(
            "on_topic",
            report.on_topic_high,
            settings.min_on_topic * (1.0 if topic is None else topic),
            good=f"{_percent(report.on_topic)} of its replies speak of what was asked; {_percent(topic)} of the "
            "served ones do.",
            bad=f"Only {_percent(report.on_topic)} of its replies speak of what was asked, where {_percent(topic)} of "
            f"the served ones do; at least {_percent(settings.min_on_topic)} of that is asked.",
        ),
        _share(
            "implausible",
            candidate.implausible,
            served.implausible,
            settings.max_implausible,
            "of its replies hold something that the base model would all but never say there",
        ),
        _check(
            "kl_base",
            kl,
            settings.max_kl,
            at_most=True,
            good=f"It stayed near the base model ({_number(kl)} nats a reply).",
            bad=f"It drifted too far from the base: {_number(kl)} nats a reply, at most {settings.max_kl:g}.",
        ),
        _share(
            "repetition",
            candidate.repetition,
            served.repetition,
            settings.max_repetition,
            "of its three-word phrases repeat what the same reply has said",
        ),
        _share(
            "degenerate",
            candidate.degenerate,
            served.degenerate,
            settings.max_degenerate,
            "of its replies are empty, bare punctuation, cut off or not words",
        ),
        _share(
            "identical",
            candidate.identical,
            served.identical,
            settings.max_identical,
            "of its replies are the same whatever was asked",
        ),
    )


def _share(name: str, value: float | None, served: float | None, limit: float, what: str) -> Check:
    threshold = max(limit, served if served is not None and math.isfinite(served) else limit)
    return _check(
        name,
        value,
        threshold,
        at_most=True,
        good=f"{_percent(value)} {what}.",
        bad=f"{_percent(value)} {what}; at most {_percent(threshold)} may.",
    )


def _check(
    name: str,
    value: float | None,
    threshold: float,
    *,
    good: str,
    bad: str,
    at_most: bool = False,
) -> Check:
    if value is None or not math.isfinite(value):
        return Check(
            name, None, threshold, False, f"{name.replace('_', ' ').capitalize()} could not be measured."
        )
    passed = value <= threshold if at_most else value >= threshold
    return Check(name, float(value), threshold, passed, good if passed else bad)


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None or not math.isfinite(value) else f"{100 * value:.0f} %"


def _fine(value: float | None) -> str:
    return "an unknown share" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "an unknown number of" if value is None or not math.isfinite(value) else f"{value:.2f}"
