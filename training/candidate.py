"""From feedback to a candidate and what was measured on it: the part of an iteration that all processes do together.

Load the base, find out what is served, prepare the lesson, train, restrain, evaluate, in this order. Several processes
divide each step among themselves (`training.processes`); the leading one has the feedback, knows what is served and
reports; the others get the `Task` and take part. Whether the candidate is good enough, and what becomes of it, is
`training.iteration`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory.schema import BASE_VERSION
from training.journal import Journal
from training.method import (
    CANDIDATE,
    REFERENCE,
    Material,
    NothingToLearn,
    Step,
    TrainingDiverged,
    method_named,
)
from training.processes import Processes
from training.report import EvaluationReport
from training.settings import TrainingSettings
from training.shared_journal import SharedJournal
from training.views import Feedback, PreferenceView

if TYPE_CHECKING:
    from training.base import BaseModel
    from training.lesson import Lesson

_SERVED = "served"
"""The served adapter's name in the model, where it is not the one that training continued."""


@dataclass(frozen=True)
class Task:
    """What there is to do: learn from `feedback`, split as `view` says, with `settings`, in the run's `folder`."""

    settings: TrainingSettings
    feedback: Feedback
    view: PreferenceView
    folder: Path

    def for_others(self) -> Task:
        """The task as it can be sent: without what only a command's own settings know."""
        names = TrainingSettings.model_fields
        plain = TrainingSettings.model_construct(**{name: getattr(self.settings, name) for name in names})
        return replace(self, settings=plain)

    def take_part(self, processes: Processes) -> None:
        """Do this process's share of what the leading one has set about."""
        journal = SharedJournal(None, processes)
        try:
            make_candidate(self, find_parent=_not_asked, journal=journal, processes=processes)
        except NothingToLearn:
            return  # The leading process tells the person.


@dataclass(frozen=True)
class Parent:
    """What is served when the iteration begins. `folder` is None for the base."""

    version: str
    folder: Path | None


@dataclass(frozen=True)
class Candidate:
    """A trained and examined adapter: `CANDIDATE` in `model`, a `PeftModel` over `base`. `continued` says whether it
    continues `parent`."""

    base: BaseModel
    model: Any
    lesson: Lesson
    parent: Parent
    continued: bool
    report: EvaluationReport


def make_candidate(
    task: Task, *, find_parent: Callable[[BaseModel], Parent], journal: Journal, processes: Processes
) -> Candidate:
    """Do the whole of it. `find_parent` is asked, and `journal` written to, in the leading process only.

    Raises `NothingToLearn`, `TrainingDiverged` (with the last good adapter saved as ``candidate`` in the folder),
    `Cancelled` from the journal, and whatever a step raises.
    """
    from training.lesson import prepare_lesson

    settings = task.settings
    journal = journal if processes.count == 1 else SharedJournal(journal, processes)
    journal.advance(0.1, "Loading the base model")
    base = _load(settings, processes)
    parent = processes.led(lambda: find_parent(base))
    continued = parent.folder if settings.start_from == "previous" else None
    lesson = prepare_lesson(base, task.view, settings=settings, continued=continued, journal=journal)
    journal.end()
    model = _train(base, task, lesson, continued=continued, journal=journal)
    scale = _restrain(base, model, lesson, settings=settings, continued=continued, journal=journal)
    report = _evaluate(base, model, task, lesson, parent, continued=continued, journal=journal)
    return Candidate(base, model, lesson, parent, continued is not None, replace(report, scale=scale))


def _not_asked(base: BaseModel) -> Parent:
    raise AssertionError("Only the leading process knows what is served.")


def _load(settings: TrainingSettings, processes: Processes) -> BaseModel:
    from transformers.utils import logging as transformers_logging

    from training.base import load_base
    from training.cpu_products import hasten

    transformers_logging.disable_progress_bar()
    base = load_base(settings, processes)
    hasten(base.model)
    return base


def _train(base: BaseModel, task: Task, lesson: Lesson, *, continued: Path | None, journal: Journal) -> Any:
    settings, folder = task.settings, task.folder
    judged = len(lesson.pairs) - lesson.people
    said = f"{_heard(lesson)} judgements of people and {judged} pairs of the judge"
    journal.begin("train", f"Training on {said} with {settings.method.upper()}")

    def on_step(step: Step) -> None:
        values = {key: value for key, value in step.values.items() if key != "step"}
        message = f"{step.doing}: step {step.step} of {step.total_steps}"
        share = step.step / step.total_steps
        journal.advance(share, message, step=step.step, total_steps=step.total_steps, **values)
        journal.check()
        base.processes.meet()

    learn = method_named(settings.method)
    try:
        model = learn(
            base,
            Material(task.feedback, task.view, lesson),
            settings=settings,
            folder=folder,
            previous=continued,
            on_step=on_step,
            check=journal.check,
        )
    except TrainingDiverged as broken:
        raise TrainingDiverged(_keep_last_good(broken, base, folder)) from broken
    journal.end()
    return model


def _keep_last_good(broken: TrainingDiverged, base: BaseModel, folder: Path) -> str:
    """Save what a broken training had before it broke, and say where."""
    if broken.last_good is None:
        return str(broken)
    from training.publishing import save_candidate

    kept = folder / "candidate"
    base.processes.led(lambda: save_candidate(broken.last_good, kept))
    return f"{broken} The adapter from before is kept in {kept}; nobody has examined it."


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
    task: Task,
    lesson: Lesson,
    parent: Parent,
    *,
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
        task.view,
        candidate=Version("candidate", CANDIDATE),
        served=served,
        reference=reference,
        judge=lesson.judge,
        settings=task.settings,
        each_step=journal.check,
        on_progress=journal.advance,
    )
    journal.end()
    judged = len(lesson.pairs) - lesson.people
    return replace(report, training_pairs=_heard(lesson), judged_pairs=judged)


def _heard(lesson: Lesson) -> int:
    """How many pairs and thumbs of people there are to learn from; what they wrote is in the pairs."""
    return lesson.people + len(lesson.rated)
