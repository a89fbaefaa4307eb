"""The command behind ``python -m training.dpo`` and its like: one whole retraining, as a person runs it in a terminal.

It is `training.run` with what a person at a terminal wants beside: other people's datasets in place of the ledger,
checkpoints and `--resume`, metrics on a board elsewhere, a report. The method is the module's; nothing here knows what
it does. Exit codes are those of `training.run`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from memory.database import Database, NewerDatabaseError, StorageError, UnknownRecord, open_database
from memory.runs import RunEnded, RunInProgress, Runs
from memory.schema import Run
from training.checkpoints import forget_checkpoints
from training.command_settings import (
    CommandSettings,
    check_flags,
    deciding,
    load_script,
    read_judgements,
    unusual,
    values_to_resume,
)
from training.dataset_files import DatasetUnreadable
from training.execution import EXIT_CODES, carry_out, claim, together
from training.iteration import Outcome, served_version
from training.processes import Processes
from training.resuming import (
    Beginning,
    CannotResume,
    check_feedback,
    digest_of,
    hand_over,
    interrupted_run,
)
from training.run_report import write_report
from training.sources import WrongColumns, example_of
from training.tracking import BoardUnavailable, check_board, reporting_to
from training.views import Feedback


@dataclass(frozen=True)
class _Plan:
    """What is to be done: with which settings, on which feedback, going on with which run (none: a new one)."""

    settings: CommandSettings
    feedback: Feedback
    beginning: Beginning
    notes: tuple[str, ...] = ()
    before: Run | None = None


def main(method: str, flags: Sequence[str] | None = None) -> int:
    """Run the command of `method` with `flags` (None: those of the process) and return its exit code."""
    return together(lambda processes: _lead(method, flags, processes))


def _lead(method: str, flags: Sequence[str] | None, processes: Processes) -> int:
    words = sys.argv[1:] if flags is None else list(flags)
    try:
        settings = _load(method, words)
    except ValidationError as error:
        print(f"These settings do not work:\n{error}", file=sys.stderr)
        return EXIT_CODES["failed"]
    if settings.method != method:
        print(
            f"This is training.{method}. For {settings.method}: python -m training.{settings.method}.",
            file=sys.stderr,
        )
        return EXIT_CODES["failed"]
    try:
        check_board(settings.report_to)
        database = open_database(settings.resolved_database_url)
    except (BoardUnavailable, StorageError, NewerDatabaseError, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    try:
        plan = _plan(settings, database, words)
        return EXIT_CODES[_carry_out(plan, database, processes).state]
    except (
        BoardUnavailable,
        CannotResume,
        DatasetUnreadable,
        RunEnded,
        RunInProgress,
        StorageError,
        UnknownRecord,
        WrongColumns,
    ) as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    finally:
        database.close()


def _load(
    method: str, words: Sequence[str] | None, values: Mapping[str, Any] = MappingProxyType({})
) -> CommandSettings:
    return load_script(
        CommandSettings,
        words,
        script=method,
        described=_describe(method),
        values={**values, "method": method},
    )


def _describe(method: str) -> str:
    """What ``--help`` says above the flags."""
    return f"""Retrain with {method}: learn an adapter from what people said, compare it with what is served, and
publish it if the gate agrees.

  python -m training.{method}                              from the studio's ledger
  python -m training.{method} --dataset rows.jsonl         from a file (docs/training.md lists the formats)
  python -m training.{method} --resume                     go on with a run that was killed
  python -m training.{method} --report-to tensorboard      watch it elsewhere

A right row for {method}:
  {example_of(method)}

Progress is shown at a terminal. The run's folder, data/runs/<id>, gets metrics.jsonl, log.txt, report.json and
report.md. Exit codes: 0 published, 3 rejected by the gate, 4 refused for too little to learn from, 130 cancelled,
1 failed."""


def _plan(settings: CommandSettings, database: Database, words: Sequence[str]) -> _Plan:
    runs, method = Runs(database), settings.method
    if not settings.resume:
        source, feedback = read_judgements(settings, database, learner=method)
        beginning = Beginning(
            settings=deciding(settings),
            until=database.clock(),
            feedback=digest_of(feedback),
            served=served_version(runs),
        )
        return _Plan(settings, feedback, beginning, tuple(source.explain() if source else ()))
    before, beginning = interrupted_run(runs, method, settings.run_id)
    began = _load(method, None, values_to_resume(settings, beginning))
    check_flags(settings, began, words)
    if began.start_from == "previous" and beginning.served != served_version(runs):
        raise CannotResume(
            f"Run {before.id} continues {beginning.served}, but {served_version(runs)} is served now. Start a new run "
            "without --resume."
        )
    source, feedback = read_judgements(began, database, learner=method, until=beginning.until)
    check_feedback(feedback, beginning)
    notes = (f"Resumed from run {before.id}.", *(source.explain() if source else ()))
    return _Plan(began, feedback, replace(beginning, resumed=before.folder), notes, before)


def _carry_out(plan: _Plan, database: Database, processes: Processes) -> Outcome:
    settings, runs = plan.settings, Runs(database)
    run = runs.queue(settings.method, served_version(runs), settings.runs_dir, settings.requested_by)
    folder = Path(run.folder)
    plan.beginning.write(folder)
    run = claim(run, runs)
    for note in plan.notes:
        print(note)
    if plan.before is not None:
        hand_over(Path(plan.before.folder), folder)
    with ExitStack() as stack:
        try:
            listen = stack.enter_context(
                reporting_to(
                    settings.report_to,
                    project=settings.project,
                    name=f"{settings.method}-{run.id}",
                    folder=folder / "tensorboard",
                    settings=plan.beginning.settings,
                )
            )
        except BoardUnavailable as problem:
            runs.update(run.id, state="failed", message=str(problem))
            raise
        outcome = carry_out(
            run,
            settings,
            database=database,
            feedback=lambda: plan.feedback,
            promote=settings.promote or not settings.dataset,
            unexamined=bool(settings.dataset),
            listen=listen,
            processes=processes,
        )
    write_report(folder, runs.get(run.id), settings=unusual(settings), notes=plan.notes)
    if outcome.state in ("published", "rejected"):
        forget_checkpoints(folder)
    return outcome
