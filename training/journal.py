"""How a run tells others where it is: the run's row, its metrics file, its log, its progress bar, its
heartbeat.

It also carries the opposite direction, the wish to stop, from whoever asked: `check` raises `Cancelled`. It
trains nothing and decides nothing. Reports to the database are at most a few a second, however often it is
called.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from memory.database import StorageError
from memory.runs import Runs
from memory.schema import RunState
from training.metrics import MetricsWriter, Phase

HEARTBEAT_SECONDS = 5.0
_EVERY_SECONDS = 0.25
_SPANS: Mapping[Phase, tuple[float, float]] = {
    "load": (0.0, 0.35),
    "train": (0.35, 0.7),
    "restrain": (0.7, 0.78),
    "evaluate": (0.78, 0.96),
    "gate": (0.96, 0.97),
    "publish": (0.97, 1.0),
}
"""From where to where each phase takes the run's progress: about its share of the time."""
_STATES: Mapping[Phase, RunState] = {
    "load": "training",
    "train": "training",
    "restrain": "training",
    "evaluate": "evaluating",
    "gate": "evaluating",
    "publish": "evaluating",
}

log = logging.getLogger("training")


class Cancelled(Exception):
    """Somebody asked the run to stop."""


class Journal:
    """Reports one run. `stop` is set by a signal handler; `show` draws progress at a terminal."""

    def __init__(
        self,
        runs: Runs,
        run_id: str,
        *,
        metrics: MetricsWriter,
        clock: Callable[[], float],
        stop: threading.Event,
        show: Callable[[float, str], None] = lambda progress, message: None,
    ) -> None:
        self._runs, self._run_id, self._metrics, self._clock = runs, run_id, metrics, clock
        self._stop, self._show = stop, show
        self._phase: Phase = "load"
        self._phase_began = self._checked_at = self._told_at = 0.0
        self.seconds: dict[str, float] = {}

    def begin(self, phase: Phase, message: str) -> None:
        """Enter a phase. Raises `Cancelled` like `check`."""
        now = self._clock()
        self._phase, self._phase_began, self._told_at = phase, now, 0.0
        log.info(message)
        self.check(at_once=True)
        self.advance(0.0, message)

    def end(self) -> None:
        """Leave the phase: `seconds` gets how long it took."""
        self.seconds[self._phase] = round(self._clock() - self._phase_began, 3)

    def advance(self, share: float, message: str, **values: Any) -> None:
        """`share` of the phase is done. `values` go into the metrics line; a line is written at each call
        with any.
        """
        now = self._clock()
        low, high = _SPANS[self._phase]
        progress = low + (high - low) * min(max(share, 0.0), 1.0)
        left = None
        if share > 0:
            left = round((now - self._phase_began) / (share * (high - low)) * (1.0 - progress), 1)
        told_lately = now - self._told_at < _EVERY_SECONDS
        if values or not told_lately:
            self._metrics.write(self._phase, progress=progress, seconds_left=left, message=message, **values)
        self._show(progress, message)
        if told_lately:
            return
        self._told_at = now
        self._runs.update(self._run_id, state=_STATES[self._phase], progress=progress, message=message)

    def check(self, *, at_once: bool = False) -> None:
        """Raise `Cancelled` if a signal or a person asked for it; looks a few times a second."""
        if self._stop.is_set():
            raise Cancelled("The trainer was told to stop.")
        now = self._clock()
        if at_once or now - self._checked_at >= _EVERY_SECONDS:
            self._checked_at = now
            if self._runs.cancel_requested(self._run_id):
                raise Cancelled("Cancelled on request.")

    def close(self, state: RunState, message: str, *, version: str | None = None) -> None:
        """The run has ended in `state`."""
        log.info("%s: %s", state, message)
        if state == "published":
            self._metrics.write("publish", progress=1.0, seconds_left=0.0, message=message)
        self._runs.update(
            self._run_id,
            state=state,
            message=message,
            version=version,
            progress=1.0 if state == "published" else None,
        )

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Say every few seconds that this process is alive, whatever the main thread is doing."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                try:
                    self._runs.heartbeat(self._run_id)
                except StorageError as error:
                    log.warning("No heartbeat: %s", error)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
