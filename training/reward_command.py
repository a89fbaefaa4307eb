"""``python -m training.reward_model``: fit a reward model on what people said, examine it, and save it for PPO.

It takes the ledger or a dataset, leaves checkpoints and goes on with a fit that was killed, and writes its metrics and
a report beside the model. The reward model serves nobody by itself, so there is no run in the ledger, no gate and no
version: whether PPO may use it is said, and kept with it. How it is fitted is `training.reward_fitting`'s to know.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from memory.database import Database, NewerDatabaseError, StorageError, open_database
from training.checkpoints import UnreadableCheckpoint, checkpoint_in, forget_checkpoints
from training.command_settings import (
    ScriptSettings,
    check_flags,
    deciding,
    load_script,
    read_judgements,
    unusual,
    values_to_resume,
)
from training.dataset_files import DatasetUnreadable
from training.execution import EXIT_CODES, LOG, METRICS, logging_to, progress_bar, signals_set, together
from training.journal import Cancelled
from training.method import Step
from training.metrics import MetricsWriter
from training.model_files import ModelUnavailable
from training.processes import Processes
from training.resuming import (
    Beginning,
    CannotResume,
    beginning_of,
    check_feedback,
    digest_of,
    forget_beginning,
)
from training.run_report import draw_curves, metrics_of, number, section, settings_table, write_whole
from training.sources import WrongColumns, example_of
from training.tracking import BoardUnavailable, check_board, reporting_to
from training.trigger import Readiness, readiness
from training.views import Feedback, PreferenceView, preference_view

if TYPE_CHECKING:
    from training.reward_validation import RewardReport


class RewardModelSettings(ScriptSettings):
    """The settings of the script that fits a reward model."""

    output: Path = Path()
    """Folder to save the reward model in. Empty: reward_model in the data folder."""

    @property
    def folder(self) -> Path:
        """Where the reward model, its metrics and its report go."""
        return self.data_dir / "reward_model" if self.output == Path() else self.output


_DESCRIBED = f"""Fit a reward model on what people said, examine it on what was kept aside, and save it.

  python -m training.reward_model                              on the studio's ledger
  python -m training.reward_model --dataset rows.jsonl         on a file (docs/training.md lists the formats)
  python -m training.reward_model --resume                     go on with a fit that was killed
  python -m training.ppo --reward-model data/reward_model      use it

A right row:
  {example_of("reward_model")}

The model's folder, data/reward_model, gets metrics.jsonl, log.txt and report.md as well. Exit codes: 0 PPO may use it,
3 it is below the bar, 4 there is too little to learn from, 130 cancelled, 1 failed."""


@dataclass(frozen=True)
class _Plan:
    """What is to be done: with which settings, on which feedback."""

    settings: RewardModelSettings
    feedback: Feedback
    beginning: Beginning
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    """What all processes do."""

    settings: RewardModelSettings
    feedback: Feedback
    view: PreferenceView

    def take_part(self, processes: Processes) -> None:
        """Do this process's share of the fit."""
        _fit_and_save(self, processes)


def main(flags: Sequence[str] | None = None) -> int:
    """Run the command with `flags` (None: those of the process) and return its exit code."""
    return together(lambda processes: _lead(flags, processes))


def _lead(flags: Sequence[str] | None, processes: Processes) -> int:
    words = sys.argv[1:] if flags is None else list(flags)
    try:
        settings = _load(words)
    except ValidationError as error:
        print(f"These settings do not work:\n{error}", file=sys.stderr)
        return EXIT_CODES["failed"]
    try:
        check_board(settings.report_to)
        database = open_database(settings.resolved_database_url)
    except (BoardUnavailable, StorageError, NewerDatabaseError, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    try:
        return _carry_out(_plan(settings, database, words), database, processes)
    except Cancelled as wish:
        print(f"{wish} Go on with --resume.", file=sys.stderr)
        return EXIT_CODES["cancelled"]
    except (
        ArithmeticError,
        BoardUnavailable,
        CannotResume,
        DatasetUnreadable,
        ModelUnavailable,
        OSError,
        UnreadableCheckpoint,
        WrongColumns,
    ) as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    finally:
        database.close()


def _load(
    words: Sequence[str] | None, values: Mapping[str, Any] = MappingProxyType({})
) -> RewardModelSettings:
    return load_script(RewardModelSettings, words, script="reward_model", described=_DESCRIBED, values=values)


def _plan(settings: RewardModelSettings, database: Database, words: Sequence[str]) -> _Plan:
    if not settings.resume:
        source, feedback = read_judgements(settings, database, learner="reward_model")
        beginning = Beginning(
            settings=deciding(settings), until=database.clock(), feedback=digest_of(feedback), served=""
        )
        return _Plan(settings, feedback, beginning, tuple(source.explain() if source else ()))
    before = beginning_of(settings.folder)
    if before is None:
        raise CannotResume(
            f"There is no unfinished reward model in {settings.folder}. Start without --resume."
        )
    began = _load(None, values_to_resume(settings, before))
    check_flags(settings, began, words)
    source, feedback = read_judgements(began, database, learner="reward_model", until=before.until)
    check_feedback(feedback, before)
    return _Plan(began, feedback, before, tuple(source.explain() if source else ()))


def _carry_out(plan: _Plan, database: Database, processes: Processes) -> int:
    settings, stop = plan.settings, threading.Event()
    folder = settings.folder
    for note in plan.notes:
        print(note)
    view = preference_view(
        plan.feedback,
        share=settings.heldout_share,
        least=settings.min_heldout_pairs,
        by=settings.heldout_by,
    )
    if not (ready := _readiness(view, settings)).ready:
        print(ready.sentence)
        return EXIT_CODES["refused"]
    folder.mkdir(parents=True, exist_ok=True)
    if not settings.resume:
        forget_checkpoints(folder)
        (folder / METRICS).unlink(missing_ok=True)
        plan.beginning.write(folder)
    with ExitStack() as stack:
        stack.enter_context(logging_to(folder / LOG))
        stack.enter_context(signals_set(stop))
        show = stack.enter_context(progress_bar())
        listen = stack.enter_context(
            reporting_to(
                settings.report_to,
                project=settings.project,
                name=f"reward_model-{plan.beginning.until:.0f}",
                folder=folder / "tensorboard",
                settings=plan.beginning.settings,
            )
        )
        metrics = stack.enter_context(MetricsWriter(folder / METRICS, clock=database.clock, listen=listen))

        def check() -> None:
            if stop.is_set():
                raise Cancelled("The fit was told to stop.")

        def on_step(step: Step) -> None:
            share = step.step / step.total_steps
            message = f"{step.doing}: step {step.step} of {step.total_steps}"
            metrics.write(
                "train",
                step=step.step,
                total_steps=step.total_steps,
                progress=share,
                message=message,
                **step.values,
            )
            show(share, message)
            check()

        task = _Task(settings, plan.feedback, view)
        processes.give_order(task)
        report, problem = _fit_and_save(task, processes, on_step=on_step, check=check)
    _write_report(plan, report, problem)
    forget_checkpoints(folder)
    forget_beginning(folder)
    print(json.dumps(report.to_dict(), indent=2))
    print(problem or f"PPO may use it: python -m training.ppo --reward-model {folder}")
    return EXIT_CODES["rejected" if problem else "published"]


def _readiness(view: PreferenceView, settings: RewardModelSettings) -> Readiness:
    """Comparisons are enough, and so are thumbs of both kinds."""
    found = [readiness(view, settings.model_copy(update={"method": method})) for method in ("ppo", "kto")]
    return min(found, key=lambda ready: ready.need)


def _fit_and_save(
    task: _Task,
    processes: Processes,
    *,
    on_step: Callable[[Step], None] = lambda step: None,
    check: Callable[[], None] = lambda: None,
) -> tuple[RewardReport, str]:
    """Fit, examine, save; what was measured, and why PPO may not use it (empty: it may). The leader writes."""
    from training.base import load_base
    from training.orderings import orderings_of, split_orderings
    from training.reward_examination import examine
    from training.reward_fitting import encode_orderings, fit
    from training.reward_validation import problem_with

    settings, folder = task.settings, task.settings.folder
    train, heldout = split_orderings(orderings_of(task.feedback), task.view.train_prompts)
    base = load_base(settings, processes)
    lessons = encode_orderings(base, train, settings=settings)
    reward_model = fit(
        base,
        lessons,
        settings=settings,
        on_step=lambda step: processes.led(lambda: on_step(step)),
        checkpoint=checkpoint_in(folder, "reward_model", every=settings.save_steps),
    )
    aside = encode_orderings(base, heldout, settings=settings)
    report = examine(reward_model, aside, known=lessons, check=processes.deferred(check))
    ids = [ordering.feedback_id for ordering in train]
    processes.led(lambda: reward_model.save(folder, report=report, feedback_ids=ids))
    return report, problem_with(report, settings)


def _write_report(plan: _Plan, report: RewardReport, problem: str) -> None:
    """Write ``report.md`` and its pictures into the model's folder."""
    from training.reliability_plot import reliability_svg

    folder = plan.settings.folder
    pictures = draw_curves(folder, metrics_of(folder))
    if picture := reliability_svg(report.reliability):
        (folder / "reliability.svg").write_text(picture, encoding="utf-8")
        pictures["How sure it was, and how often right"] = "reliability.svg"
    measured = [
        f"| {name.replace('_', ' ')} | {number(value)} |"
        for name, value in report.to_dict().items()
        if isinstance(value, int | float)
    ]
    edited = [f"| sees through: {name} | {number(share)} |" for name, share in report.edited.items()]
    parts = [
        f"# A reward model that {'is below the bar' if problem else 'PPO may use'}",
        problem,
        section("Data", [f"- {note}" for note in plan.notes]),
        section("Fitting", [f"![{title}]({name})" for title, name in pictures.items()], apart=True),
        section("On what was kept aside", ["| figure | value |", "|---|---|", *measured, *edited]),
        section("Settings that differ from the defaults", settings_table(unusual(plan.settings))),
    ]
    write_whole(folder / "report.md", "\n\n".join(part for part in parts if part) + "\n")
