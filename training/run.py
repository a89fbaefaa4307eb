"""The command that retrains: ``python -m training.run``. One whole iteration, then it ends.

It reads the settings and the studio's data folder, claims or makes the run's row, turns signals into a wish
to stop, keeps the log, and turns the outcome into an exit code: 0 published, 3 rejected by the gate, 4
refused (too little data), 130 cancelled, 1 failed. A running studio notices the promotion by itself. What an
iteration consists of is `training.iteration`'s to know.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import ValidationError

from memory.database import Database, NewerDatabaseError, StorageError, UnknownRecord, open_database
from memory.ledger import Ledger
from memory.runs import RunEnded, RunInProgress, Runs
from memory.schema import FINAL_STATES, Run
from memory.settings import load_settings
from training.iteration import Outcome, iterate, served_version
from training.journal import Cancelled, Journal
from training.metrics import MetricsWriter
from training.registry import Registry
from training.settings import TrainingSettings

EXIT_CODES = {"published": 0, "failed": 1, "rejected": 3, "refused": 4, "cancelled": 130}
log = logging.getLogger("training")


class RunSettings(TrainingSettings):
    """Do one whole retraining: read the feedback in the data folder, train an adapter with `method`, compare
    it with what is served, and publish it if the gate agrees. A running studio switches to it by itself.

    Exit codes: 0 published, 3 rejected by the gate, 4 refused for too little to learn from, 130 cancelled, 1 failed.
    """

    run_id: str = ""
    """Carry out the queued run with this id, as the studio asks. Empty: a new run."""

    requested_by: str = "command line"
    """Who asked for a new run, for the record."""


def main(flags: Sequence[str] | None = None) -> int:
    """Run the command with `flags` (None: those of the process) and return its exit code."""
    try:
        settings = load_settings(RunSettings, sys.argv[1:] if flags is None else flags)
    except ValidationError as error:
        print(f"These settings do not work:\n{error}", file=sys.stderr)
        return EXIT_CODES["failed"]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The chat shares these cores: threads that wait for each other must sleep, not spin. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        database = open_database(settings.resolved_database_url)
    except (StorageError, NewerDatabaseError, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    try:
        run = _claim(settings, Runs(database))
        return _carry_out(run, settings, database)
    except (RunInProgress, RunEnded, UnknownRecord, StorageError) as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    finally:
        database.close()


def _claim(settings: RunSettings, runs: Runs) -> Run:
    """The run to carry out, with this process written on it. Raises `RunInProgress`, `RunEnded`,
    `UnknownRecord`.
    """
    if settings.run_id:
        run = runs.get(settings.run_id)
    else:
        run = runs.queue(settings.method, served_version(runs), settings.runs_dir, settings.requested_by)
    if run.state in FINAL_STATES:
        raise RunEnded(f"Run {run.id} has ended already ({run.state}: {run.message}). Queue a new one.")
    runs.update(run.id, state="training", message="Starting", pid=os.getpid())
    return runs.get(run.id)


def _carry_out(run: Run, settings: RunSettings, database: Database) -> int:
    runs, stop = Runs(database), threading.Event()
    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        _logging_to(folder / "log.txt"),
        _signals_set(stop),
        _progress_bar() as show,
        MetricsWriter(folder / "metrics.jsonl", clock=database.clock) as metrics,
    ):
        journal = Journal(runs, run.id, metrics=metrics, clock=database.clock, stop=stop, show=show)
        with journal.heartbeat():
            outcome = _outcome(
                lambda: iterate(
                    run,
                    settings=settings,
                    ledger=Ledger(database),
                    runs=runs,
                    registry=Registry(settings.adapters_dir),
                    journal=journal,
                    clock=database.clock,
                ),
                folder,
            )
        journal.close(outcome.state, outcome.message, version=outcome.version)
    print(f"{outcome.state}{f' {outcome.version}' if outcome.version else ''}: {outcome.message}")
    return EXIT_CODES[outcome.state]


def _outcome(work: Callable[[], Outcome], folder: Path) -> Outcome:
    """What came of `work`, whatever it raised: this is the process's outermost boundary."""
    try:
        return work()
    except Cancelled as wish:
        return Outcome("cancelled", f"{wish} What is served has not changed.")
    except Exception as error:  # the process's boundary: logged whole, and told to the person
        log.exception("The retraining failed")
        return Outcome(
            "failed", f"{_explain(error)} What is served has not changed. Details: {folder / 'log.txt'}"
        )


def _explain(error: Exception) -> str:
    """What happened and what to do, in a sentence or two."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "Memory ran out. Lower batch_size (raise gradient_accumulation to make up for it) and retrain."
    if isinstance(error, OSError | ValueError | ArithmeticError | RuntimeError) and str(error):
        return f"{str(error).rstrip('.')}."
    return f"The trainer stopped with an error of its own ({type(error).__name__}: {error})."


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask for an orderly end; a second one ends at once."""
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Log to `file`, and to stderr unless that is the same file, or a terminal with the progress bar."""
    line = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handlers: list[logging.Handler] = [logging.FileHandler(file, encoding="utf-8")]
    if not sys.stderr.isatty() and not _is_same_file(sys.stderr, file):
        handlers.append(logging.StreamHandler(sys.stderr))
    previous = log.level
    log.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(line)
        log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(previous)
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def _is_same_file(stream: object, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), file.stat())  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def _progress_bar() -> Iterator[Callable[[float, str], None]]:
    """A bar for a person at a terminal; nothing is drawn anywhere else."""
    if not sys.stderr.isatty():
        yield lambda progress, message: None
        return
    from tqdm import tqdm

    layout = "{percentage:3.0f} % |{bar}| {elapsed} < {remaining}  {desc}"
    with tqdm(total=1.0, bar_format=layout, file=sys.stderr) as bar:

        def show(progress: float, message: str) -> None:
            bar.set_description_str(message, refresh=False)
            bar.update(progress - bar.n)

        yield show


if __name__ == "__main__":
    sys.exit(main())
