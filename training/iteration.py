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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memory.runs import Runs
from memory.schema import BASE_VERSION, Run, RunState
from training.auto import choose
from training.candidate import Parent, Task, make_candidate
from training.gate import Verdict, decide
from training.journal import Journal
from training.method import NothingToLearn
from training.processes import ALONE, Processes
from training.registry import AdapterRefused, Registry, UnknownAdapter
from training.report import EvaluationReport
from training.settings import TrainingSettings
from training.trigger import explain_dropped, readiness
from training.views import Feedback, PreferenceView, preference_view

if TYPE_CHECKING:
    from training.base import BaseModel

log = logging.getLogger("training")


@dataclass(frozen=True)
class Outcome:
    """How an iteration ended, in a sentence; `version` is what was published."""

    state: RunState
    message: str
    version: str | None = None


def iterate(
    run: Run,
    *,
    settings: TrainingSettings,
    feedback: Callable[[], Feedback],
    runs: Runs,
    registry: Registry,
    journal: Journal,
    clock: Callable[[], float],
    promote: bool = True,
    unexamined: bool = False,
    processes: Processes = ALONE,
) -> Outcome:
    """Do the whole iteration for `run` on what `feedback` gives, reporting to `journal`; leaves ``report.json`` and
    ``candidate/`` in its folder. Without `promote` a version that the gate agrees to is published, but not served. With
    `unexamined` it trains on demonstrations that nothing can examine, which the gate then says (`readiness`). Of
    several `processes` this is what the leading one does; the others take part in the task.

    Raises `Cancelled` from the journal, and whatever a step raises. The caller writes the outcome to the
    run's row.
    """
    folder = Path(run.folder)
    journal.begin("load", "Reading the feedback")
    judged = feedback()
    view = preference_view(
        judged,
        share=settings.heldout_share,
        least=settings.min_heldout_pairs,
        by=settings.heldout_by,
    )
    ready = readiness(view, settings, unexamined=unexamined)
    if not ready.ready:
        return Outcome("refused", ready.sentence)
    log.info("%s. %s", _held(view), _left_out(view))
    settings = _with_method(view, settings, journal)

    task = Task(settings, judged, view, folder)
    processes.give_order(task.for_others())
    try:
        found = make_candidate(
            task,
            find_parent=lambda base: _find_parent(runs, registry, base),
            journal=journal,
            processes=processes,
        )
    except NothingToLearn as reason:
        return Outcome("refused", str(reason))
    base, model, lesson, report = found.base, found.model, found.lesson, found.report

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
        parent=found.parent.version if found.continued else BASE_VERSION,
        feedback_ids=lesson.feedback_ids,
        report=report,
        verdict=verdict,
        created_at=clock(),
    )
    version = publish(registry, base, model, saved, lineage=lineage, settings=settings).version
    if promote:
        runs.promote(version, actor="gate", reason=verdict.summary)
    journal.end()
    return Outcome("published", verdict.summary if promote else _unserved(version, verdict), version)


def _unserved(version: str, verdict: Verdict) -> str:
    """What the gate said of a version that it would have promoted."""
    return f"{version} is published and not served; the gate agrees to it. {verdict.summary.replace('Promoted: ', '')}"


def _with_method(view: PreferenceView, settings: TrainingSettings, journal: Journal) -> TrainingSettings:
    """The settings with the method that is trained with: where that is left to us, what fits the feedback."""
    if settings.method != "auto":
        return settings
    choice = choose(view, settings)
    journal.begin("load", choice.sentence)
    return settings.model_copy(update={"method": choice.method})


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


def _held(view: PreferenceView) -> str:
    train = f"{len(view.train)} pairs and {len(view.rated)} thumbs to train on"
    return f"{train}, {len(view.heldout)} pairs and {len(view.rated_heldout)} thumbs kept aside"


def _left_out(view: PreferenceView) -> str:
    explained = explain_dropped(view.dropped)
    return f"Not counted: {explained}." if explained else "Every judgement counts."
