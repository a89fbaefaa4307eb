"""The Retrain button: may it be pressed, what happens when it is, and how far it has come.

A retraining is a run in the database and a process of its own (`studio.trainer_process`); the two meet the
studio only in the database, the adapter registry and the run's folder. This module trains nothing, judges
nothing and promotes nothing; it reads what the trainer writes, whole lines only, and reports a trainer that
died without a word.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memory.database import StorageError
from memory.ledger import Ledger
from memory.runs import RunEnded, Runs
from memory.schema import BASE_VERSION, FINAL_STATES, Run
from studio.prospects import Prospects
from studio.settings import StudioSettings
from studio.trainer_process import TRAINER, start_trainer
from training.trigger import Readiness

logger = logging.getLogger(__name__)

_TAIL_BYTES = 1 << 20
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class RetrainingRefused(ValueError):
    """A retraining may not begin yet; the message says what is missing."""


class Retraining:
    """Starts, follows and cancels retrainings. Thread-safe.

    A trainer that is asked to stop and goes on for `cancel_grace` seconds is ended; `clock` here only
    measures that.
    """

    def __init__(
        self,
        settings: StudioSettings,
        runs: Runs,
        ledger: Ledger,
        *,
        command: Sequence[str] = TRAINER,
        cancel_grace: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._runs = runs
        self._command = command
        self._cancel_grace = cancel_grace
        self._clock = clock
        self.prospects = Prospects(settings, ledger)
        self._watchers: dict[str, threading.Thread] = {}

    def readiness(self) -> Readiness:
        """Is there enough to learn from, and if not, what is missing? Quick; of a long ledger it may tell the count
        before the latest judgements.
        """
        return self.prospects.latest().readiness

    def start(self, requested_by: str) -> Run:
        """Begin a retraining on everything said so far, and return at once.

        Raises `RetrainingRefused` while there is too little, `memory.runs.RunInProgress` while one is under
        way, and `StorageError` when the run cannot be written down.
        """
        ready = self.readiness()
        if not ready.ready:
            ready = self.prospects.now().readiness
        if not ready.ready:
            raise RetrainingRefused(ready.sentence)
        served = self._runs.served()
        parent = served.version if served is not None else BASE_VERSION
        run = self._runs.queue(self._settings.method, parent, self._settings.runs_dir, requested_by)
        try:
            process = start_trainer(
                ["--run-id", run.id],
                settings=self._settings,
                log=Path(run.folder) / "log.txt",
                niceness=self._settings.training_niceness,
                command=self._command,
            )
        except OSError as error:
            self._runs.update(run.id, state="failed", message=f"The trainer could not be started: {error}")
            return self._runs.get(run.id)
        self._watch(run.id, process)
        return self._runs.get(run.id)

    def cancel(self, run_id: str) -> None:
        """Ask the trainer to stop. What is served stays served."""
        self._runs.request_cancel(run_id)

    def active(self) -> Run | None:
        """The run under way, started from here or from anywhere else."""
        return self._runs.active()

    def wait(self, run_id: str, *, timeout: float) -> bool:
        """Block until a trainer that was started here has gone; False when `timeout` seconds passed first."""
        watcher = self._watchers.get(run_id)
        if watcher is None:
            return True
        watcher.join(timeout)
        return not watcher.is_alive()

    def metrics(self, run_id: str, *, limit: int = 2_000) -> list[dict[str, Any]]:
        """The last lines of the run's metrics, oldest first; a line that is half written or damaged is left
        out.
        """
        rows = [_object_in(line) for line in self._tail(run_id, "metrics.jsonl", limit)]
        return [row for row in rows if row is not None]

    def log_tail(self, run_id: str, *, lines: int = 200) -> str:
        """The end of the run's log; of a progress bar that repaints its line, the last state only."""
        return "\n".join(
            _CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2])
            for line in self._tail(run_id, "log.txt", lines, half_written=True)
        )

    def report(self, run_id: str) -> dict[str, Any] | None:
        """The evaluation and the gate's verdict of a run that got so far."""
        try:
            text = (Path(self._runs.get(run_id).folder) / "report.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return _object_in(text)

    def _tail(self, run_id: str, name: str, limit: int, *, half_written: bool = False) -> list[str]:
        try:
            with (Path(self._runs.get(run_id).folder) / name).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        if size > _TAIL_BYTES:
            del lines[0]
        last = lines.pop()
        if half_written and last:
            lines.append(last)
        return [line.decode("utf-8", errors="replace") for line in lines[-limit:]]

    def _watch(self, run_id: str, process: subprocess.Popen[bytes]) -> None:
        def watch() -> None:
            try:
                self._follow(run_id, process)
            except Exception:
                logger.exception("Run %s could not be followed to its end", run_id)

        try:
            self._runs.update(run_id, pid=process.pid)
        except RunEnded:
            logger.debug("Run %s ended before its process could be noted", run_id)
        self._watchers[run_id] = threading.Thread(target=watch, name=f"trainer-{run_id[:8]}", daemon=True)
        self._watchers[run_id].start()

    def _follow(self, run_id: str, process: subprocess.Popen[bytes]) -> None:
        """Collect the process when it ends, and end it when it ignores a request to stop."""
        asked_at: float | None = None
        while True:
            try:
                code = process.wait(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                asked_at = self._end_if_deaf(run_id, process, asked_at)
        for _attempt in range(10):
            try:
                self._report_silent_end(run_id, code)
                return
            except StorageError as error:
                logger.warning("The end of run %s is not written yet: %s", run_id, error)
                time.sleep(2.0)

    def _end_if_deaf(
        self, run_id: str, process: subprocess.Popen[bytes], asked_at: float | None
    ) -> float | None:
        try:
            if asked_at is None:
                return self._clock() if self._runs.cancel_requested(run_id) else None
        except StorageError as error:
            logger.warning("Whether run %s is to stop is not known: %s", run_id, error)
            return None
        deaf_for = self._clock() - asked_at
        if deaf_for > 2 * self._cancel_grace:
            process.kill()
        elif deaf_for > self._cancel_grace:
            process.terminate()
        return asked_at

    def _report_silent_end(self, run_id: str, code: int) -> None:
        run = self._runs.get(run_id)
        if run.state in FINAL_STATES:
            return
        try:
            if run.cancel_requested:
                self._runs.update(
                    run_id, state="cancelled", message="Cancelled. What is served has not changed."
                )
                return
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            last = next(
                (line for line in reversed(self.log_tail(run_id, lines=20).splitlines()) if line.strip()), ""
            )
            self._runs.update(
                run_id,
                state="failed",
                message=f"The trainer {how} without a result; the chat goes on as before. "
                f"Last line of its log: {last or '(none)'}",
            )
        except RunEnded:
            logger.debug("Run %s reached its end by itself", run_id)


def _object_in(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
