"""One run carried out in this process: its log, its signals, its progress bar, its heartbeat, and how it ended.

Every command that retrains comes here with a run that it has claimed. What an iteration consists of is
`training.iteration`'s to know, where the feedback comes from and what the flags are the commands'.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from memory.database import Database
from memory.runs import RunEnded, Runs
from memory.schema import FINAL_STATES, Run
from training.iteration import Outcome, iterate
from training.journal import Cancelled, Journal
from training.metrics import MetricsWriter
from training.processes import ALONE, Processes, joined
from training.registry import Registry
from training.settings import TrainingSettings
from training.views import Feedback

EXIT_CODES = {"published": 0, "failed": 1, "rejected": 3, "refused": 4, "cancelled": 130}
METRICS, LOG = "metrics.jsonl", "log.txt"
log = logging.getLogger("training")


def prepare_environment() -> None:
    """Set what libraries read when they are loaded, unless a person has set it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The chat shares these cores: threads that wait for each other must sleep, not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def together(lead: Callable[[Processes], int]) -> int:
    """Run `lead` if this process leads those that were launched with it (alone, it does); otherwise take part in what
    the leading one sets about. Returns this process's exit code.
    """
    prepare_environment()
    with joined() as processes:
        if not processes.leads:
            return _take_part(processes)
        try:
            return lead(processes)
        finally:
            processes.dismiss()


def _take_part(processes: Processes) -> int:
    try:
        # Launchers pass a signal on to all; the leading process hears it too, and ends the others in good order.
        with signals_set(threading.Event()):
            order = processes.take_order()
            if order is not None:
                order.take_part(processes)
    except Cancelled:
        return EXIT_CODES["cancelled"]
    except (
        Exception
    ):  # the process's boundary: the leading one tells the person, this one leaves its traceback
        log.exception("Process %d of %d stopped", processes.rank, processes.count)
        return EXIT_CODES["failed"]
    return 0


def claim(run: Run, runs: Runs) -> Run:
    """`run` with this process written on it. Raises `RunEnded` for one that has ended."""
    if run.state in FINAL_STATES:
        raise RunEnded(f"Run {run.id} has ended already ({run.state}: {run.message}). Queue a new one.")
    runs.update(run.id, state="training", message="Starting", pid=os.getpid())
    return runs.get(run.id)


def carry_out(
    run: Run,
    settings: TrainingSettings,
    *,
    database: Database,
    feedback: Callable[[], Feedback],
    promote: bool = True,
    unexamined: bool = False,
    listen: Callable[[Mapping[str, Any]], None] = lambda line: None,
    processes: Processes = ALONE,
) -> Outcome:
    """Do the iteration for the claimed `run`, write down how it ended, and say it; of several `processes` the leading
    one is here.

    `promote` and `unexamined` are `iterate`'s. `listen` gets every line of the metrics file as it is written. Whatever
    the iteration raises becomes an outcome.
    """
    runs, stop = Runs(database), threading.Event()
    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        logging_to(folder / LOG),
        signals_set(stop),
        progress_bar() as show,
        MetricsWriter(folder / METRICS, clock=database.clock, listen=listen) as metrics,
    ):
        journal = Journal(runs, run.id, metrics=metrics, clock=database.clock, stop=stop, show=show)
        with journal.heartbeat():
            outcome = _outcome(
                lambda: iterate(
                    run,
                    settings=settings,
                    feedback=feedback,
                    runs=runs,
                    registry=Registry(settings.adapters_dir),
                    journal=journal,
                    clock=database.clock,
                    promote=promote,
                    unexamined=unexamined,
                    processes=processes,
                ),
                folder,
            )
        journal.close(outcome.state, outcome.message, version=outcome.version)
    print(f"{outcome.state}{f' {outcome.version}' if outcome.version else ''}: {outcome.message}")
    return outcome


def _outcome(work: Callable[[], Outcome], folder: Path) -> Outcome:
    """What came of `work`, whatever it raised: this is the process's outermost boundary."""
    try:
        return work()
    except Cancelled as wish:
        return Outcome("cancelled", f"{wish} What is served has not changed.")
    except Exception as error:  # the process's boundary: logged whole, and told to the person
        log.exception("The retraining failed")
        return Outcome("failed", f"{explain(error)} What is served has not changed. Details: {folder / LOG}")


def explain(error: Exception) -> str:
    """What happened and what to do, in a sentence or two."""
    from training.out_of_memory import is_out_of_memory

    if is_out_of_memory(error):
        return (
            "Memory ran out, even with the smallest batches that could be tried. Lower batch_size (and raise "
            "gradient_accumulation to make up for it), context_tokens or max_new_tokens, or choose a smaller model."
        )
    if "Connection closed by peer" in str(error) or "Connection reset by peer" in str(error):
        return "Another process of this training has ended; what it printed says why."
    if isinstance(error, OSError | ValueError | ArithmeticError | RuntimeError) and str(error):
        return f"{str(error).rstrip('.')}."
    return f"The trainer stopped with an error of its own ({type(error).__name__}: {error})."


@contextmanager
def signals_set(stop: threading.Event) -> Iterator[None]:
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
def logging_to(file: Path) -> Iterator[None]:
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
def progress_bar() -> Iterator[Callable[[float, str], None]]:
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
