"""One whole iteration: read the feedback, train, evaluate, let the gate decide, publish, promote.

The order is the contract. Nothing heavy is imported before the feedback has proved to be enough; nothing is
published before the gate has said yes; nothing is promoted before it is whole on the shelf. Whatever ends an
iteration early (a wish to stop, a crash, SIGKILL) leaves what is served as it was. The steps themselves are
other modules' business; this one knows no flags, no signals and no exit codes.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory.ledger import Ledger
from memory.runs import Runs
from memory.schema import BASE_VERSION, Run, RunState
from training.gate import Verdict, decide
from training.journal import Journal
from training.method import CANDIDATE, REFERENCE, Material, NothingToLearn, Step, method_named
from training.registry import AdapterRefused, Registry, UnknownAdapter
from training.report import EvaluationReport
from training.settings import TrainingSettings
from training.trigger import explain_dropped, readiness
from training.views import PreferenceView, preference_view, read_feedback

if TYPE_CHECKING:
    from training.base import BaseModel
    from training.lesson import Lesson

log = logging.getLogger("training")
_SERVED = "served"
"""The served adapter's name in the model, where it is not the one that training continued."""


@dataclass(frozen=True)
class Outcome:
    """How an iteration ended, in a sentence; `version` is what was published."""

    state: RunState
    message: str
    version: str | None = None


@dataclass(frozen=True)
class Parent:
    """What is served when the iteration begins. `folder` is None for the base."""

    version: str
    folder: Path | None


def iterate(
    run: Run,
    *,
    settings: TrainingSettings,
    ledger: Ledger,
    runs: Runs,
    registry: Registry,
    journal: Journal,
    clock: Callable[[], float],
) -> Outcome:
    """Do the whole iteration for `run`, reporting to `journal`; leaves ``report.json`` and ``candidate/`` in
    its folder.

    Raises `Cancelled` from the journal, and whatever a step raises. The caller writes the outcome to the
    run's row.
    """
    folder = Path(run.folder)
    journal.begin("load", "Reading the feedback")
    feedback = read_feedback(ledger)
    view = preference_view(feedback, share=settings.heldout_share, least=settings.min_heldout_pairs)
    ready = readiness(view, settings)
    if not ready.ready:
        return Outcome("refused", ready.sentence)
    log.info("%d pairs to train on, %d kept aside. %s", len(view.train), len(view.heldout), _left_out(view))

    journal.advance(0.1, "Loading the base model")
    from training.lesson import prepare_lesson

    base = _load(settings)
    parent = _find_parent(runs, registry, base)
    continued = parent.folder if settings.start_from == "previous" else None
    lesson = prepare_lesson(base, view, settings=settings, continued=continued, journal=journal)
    journal.end()

    material = Material(feedback, view, lesson)
    try:
        model = _train(base, material, settings=settings, folder=folder, continued=continued, journal=journal)
    except NothingToLearn as reason:
        return Outcome("refused", str(reason))
    scale = _restrain(base, model, lesson, settings=settings, continued=continued, journal=journal)
    report = _evaluate(
        base, model, view, lesson, parent, settings=settings, continued=continued, journal=journal
    )
    report = replace(report, scale=scale)

    journal.begin("gate", "Deciding")
    verdict = decide(report, settings)
    _write_report(folder, report, verdict, view, journal)
    from training.publishing import Lineage, publish, save_candidate

    saved = save_candidate(model, folder / "candidate")
    journal.end()
    if not verdict.promote:
        return Outcome("rejected", verdict.summary)

    journal.begin("publish", "Publishing")
    lineage = Lineage(
        parent=parent.version if continued else BASE_VERSION,
        feedback_ids=lesson.feedback_ids,
        report=report,
        verdict=verdict,
        created_at=clock(),
    )
    version = publish(registry, base, model, saved, lineage=lineage, settings=settings).version
    runs.promote(version, actor="gate", reason=verdict.summary)
    journal.end()
    return Outcome("published", verdict.summary, version)


def served_version(runs: Runs) -> str:
    """The version that the last promotion names, or the base."""
    promotion = runs.served()
    return promotion.version if promotion else BASE_VERSION


def _find_parent(runs: Runs, registry: Registry, base: BaseModel) -> Parent:
    """What is served and can be loaded here; an adapter of another base the studio does not serve either."""
    version = served_version(runs)
    if version == BASE_VERSION:
        return Parent(BASE_VERSION, None)
    try:
        return Parent(version, registry.verify(version, base_identity=base.identity).path)
    except (AdapterRefused, UnknownAdapter) as problem:
        log.warning("Compared with the base instead of %s: %s", version, problem)
        return Parent(BASE_VERSION, None)


def _load(settings: TrainingSettings) -> BaseModel:
    from transformers.utils import logging as transformers_logging

    from training.base import load_base

    transformers_logging.disable_progress_bar()
    return load_base(settings)


def _train(
    base: BaseModel,
    material: Material,
    *,
    settings: TrainingSettings,
    folder: Path,
    continued: Path | None,
    journal: Journal,
) -> Any:
    pairs = len(material.lesson.pairs)
    journal.begin("train", f"Training on {pairs} pairs with {settings.method.upper()}")

    def on_step(step: Step) -> None:
        values = {key: value for key, value in step.values.items() if key != "step"}
        message = f"{step.doing}: step {step.step} of {step.total_steps}"
        share = step.step / step.total_steps
        journal.advance(share, message, step=step.step, total_steps=step.total_steps, **values)
        journal.check()

    learn = method_named(settings.method)
    model = learn(
        base,
        material,
        settings=settings,
        folder=folder,
        previous=continued,
        on_step=on_step,
        check=journal.check,
    )
    journal.end()
    return model


def _restrain(
    base: BaseModel,
    model: Any,
    lesson: Lesson,
    *,
    settings: TrainingSettings,
    continued: Path | None,
    journal: Journal,
) -> float:
    """The scale that was left to the adapter; one that continues another is not measured from the base, and stays."""
    if not settings.restrain or continued is not None:
        return 1.0
    from training.restraint import restrain

    journal.begin("restrain", "Scaling the adapter down as far as its gain allows")
    found = restrain(
        base,
        model,
        lesson.pools,
        lesson.judge,
        adapter=CANDIDATE,
        settings=settings,
        check=journal.check,
    )
    journal.end()
    return found.scale


def _evaluate(
    base: BaseModel,
    model: Any,
    view: PreferenceView,
    lesson: Lesson,
    parent: Parent,
    *,
    settings: TrainingSettings,
    continued: Path | None,
    journal: Journal,
) -> EvaluationReport:
    journal.begin("evaluate", "Examining the candidate")
    from training.evaluation import Version, evaluate

    ground = Version(BASE_VERSION, None)
    served, reference = ground, ground
    if continued is not None:
        served = reference = Version(parent.version, REFERENCE)
    elif parent.folder is not None:
        model.load_adapter(str(parent.folder), adapter_name=_SERVED, is_trainable=False)
        served = Version(parent.version, _SERVED)
    report = evaluate(
        base,
        model,
        view,
        candidate=Version("candidate", CANDIDATE),
        served=served,
        reference=reference,
        judge=lesson.judge,
        settings=settings,
        each_step=journal.check,
        on_progress=journal.advance,
    )
    journal.end()
    return replace(report, training_pairs=lesson.people, judged_pairs=len(lesson.pairs) - lesson.people)


def _write_report(
    folder: Path, report: EvaluationReport, verdict: Verdict, view: PreferenceView, journal: Journal
) -> None:
    """Write ``report.json`` (evaluation, verdict, what was dropped, seconds by phase) whole or not at all."""
    content = {
        "evaluation": report.to_dict(),
        "verdict": verdict.to_dict(),
        "dropped": dict(view.dropped),
        "seconds": journal.seconds,
    }
    unfinished = folder / "report.json.part"
    unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, folder / "report.json")


def _left_out(view: PreferenceView) -> str:
    explained = explain_dropped(view.dropped)
    return f"Not counted: {explained}." if explained else "Every judgement counts."
