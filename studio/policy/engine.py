"""Many replies from one model: rows join and leave between two tokens, each under its own adapter and sampling.

One thread owns the model and is the only one to touch it. A turn of its loop takes at most a slice of a job (loading
an adapter) or of waiting prompts, and one token for every running row, so that nobody waits long for anybody.
The engine knows neither text nor versions nor PEFT; what it shares with other threads is a queue under a lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from itertools import count
from typing import TypeVar

import torch

from studio.policy.admission import Limits, fits, holds
from studio.policy.batch import Batch, Forward, Row
from studio.policy.failures import CLOSING, FAILED, NOT_NUMBERS, explain, free_memory, is_out_of_memory
from studio.policy.interface import PolicyClosed
from studio.policy.jobs import Jobs
from studio.policy.line import Line
from studio.policy.sampling import INVALID, choose

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class Engine:
    """Runs `forward` for rows until `close`. `threads` is the number of CPU threads for the model; 0 leaves torch's."""

    def __init__(
        self, forward: Forward, *, layer_count: int, device: torch.device, limits: Limits, threads: int = 0
    ) -> None:
        self._forward = forward
        self._layer_count = layer_count
        self._device = device
        self._limits = limits
        self._threads = threads
        self._changed = threading.Condition()
        self._line: Line[Row] = Line(limits.waiting)
        self._jobs = Jobs()
        self._job_ran = False
        self._numbers = count(1)
        self._closing = False
        self._opening: Batch | None = None
        self._running: Batch | None = None
        self._owner = threading.Thread(target=self._own, name="policy-engine", daemon=True)
        self._owner.start()

    def submit(self, row: Row) -> None:
        """Put a row in line. Raises `Busy` when the line is full, `PolicyClosed`."""
        with self._changed:
            if self._closing:
                raise PolicyClosed("The policy is closed; start the studio again.")
            row.number = next(self._numbers)
            self._line.join(row, free=self._free_rows())
            self._tell_places()
            self._changed.notify()

    def run(self, job: Generator[None, None, Result]) -> Future[Result]:
        """Run `job` on the owner's thread, one slice (up to its next ``yield``) a turn; the future has its result."""
        with self._changed:
            if self._closing:
                raise PolicyClosed("The policy is closed; start the studio again.")
            future = self._jobs.add(job)
            self._changed.notify()
        return future

    @property
    def slots(self) -> int:
        """Row-columns that the caches of all replies under way hold at the moment; any thread may ask."""
        return sum(batch.cache.slots for batch in self._batches())

    def wake(self) -> None:
        """Have the owner look for cancelled rows."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """End all rows with an error text and stop the thread. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._owner:
            self._owner.join()

    def _own(self) -> None:
        """The owner's thread, from beginning to end."""
        if self._threads:
            torch.set_num_threads(self._threads)
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._closing:
                    break
            try:
                self._turn()
            except Exception as error:  # the outermost boundary of this thread: rows fail, the engine goes on
                logger.exception("A turn of the engine failed.")
                self._fail_everything(FAILED.format(error=error))
        self._fail_everything(CLOSING)
        with self._changed:
            self._jobs.cancel()

    def _has_work(self) -> bool:
        return bool(self._closing or len(self._jobs) or self._has_newcomers() or self._running)

    def _has_newcomers(self) -> bool:
        return bool(len(self._line) or self._opening)

    def _turn(self) -> None:
        # Beside running rows there is a slice of a job or one of prompts, and the two take turns.
        self._job_ran = not (self._job_ran and self._has_newcomers()) and self._jobs.advance()
        with torch.inference_mode():
            self._drop_cancelled()
            if not (self._job_ran and self._running):
                self._admit()
            if self._running is not None:
                self._step(self._running)

    def _admit(self) -> None:
        """Choose who comes next, or go on reading the prompts of those who were chosen."""
        if self._opening is None:
            self._open()
        else:
            self._open_twins(self._opening)
        if self._opening is not None:
            self._read(self._opening)

    def _drop_cancelled(self) -> None:
        with self._changed:
            dropped = [row for row in self._line if row.sink.cancelled]
            for row in dropped:
                self._line.leave(row)
            if dropped:
                self._tell_places()
        for batch in self._batches():
            dropped += self._leave(batch, [row for row in batch.everyone if row.sink.cancelled])
        for row in dropped:
            row.sink.end()

    def _open(self) -> None:
        """Choose from the front of the line the rows whose prompts are read together next."""
        group: list[Row] = []
        budget = self._budget()
        with self._changed:
            free = self._free_rows()
            while len(group) < free and (first := next(iter(self._line), None)):
                if not fits(group, first, running=self._runners(), limits=self._limits, columns=budget):
                    break
                group.append(self._line.serve())
            if not group:
                return
            self._tell_places()
        for row in group:
            row.sink.move_up(0)
        self._opening = Batch(
            group,
            layer_count=self._layer_count,
            device=self._device,
            most_slots=self._limits.slots,
        )

    def _open_twins(self, opening: Batch) -> None:
        """Let those at the front of the line join whose very prompt is being read."""
        joined: list[Row] = []
        with self._changed:
            while self._free_rows() and (first := next(iter(self._line), None)):
                if first.alone or not self._holds([*opening.everyone, first]) or not opening.adopt(first):
                    break
                joined.append(self._line.serve())
            if joined:
                self._tell_places()
        for row in joined:
            row.sink.move_up(0)

    def _holds(self, newcomers: Sequence[Row]) -> bool:
        return holds([*newcomers, *self._runners()], self._limits)

    def _runners(self) -> list[Row]:
        return self._running.rows if self._running is not None else []

    def _read(self, opening: Batch) -> None:
        """Read a slice of the prompts; with the last slice come the first tokens, and the rows start to run."""
        try:
            logits = opening.read(self._forward, columns=max(1, self._budget() // len(opening.rows)))
            if logits is None:
                return
            self._hand_out(opening, logits)
            self._opening = None
            if opening.rows and self._running is None:
                self._running = opening
            elif opening.rows and self._running is not None:
                self._running.absorb(opening)
        except Exception as error:  # noqa: BLE001  (the newcomers' failure is theirs alone: what runs goes on)
            self._opening = None
            self._retry_or_fail(opening, error)

    def _retry_or_fail(self, opening: Batch, error: Exception) -> None:
        """Fail a lone row; send several back to the front of the line, to be read one by one."""
        everyone = opening.everyone
        rows = [row for row in everyone if self._running is None or row not in self._running.rows]
        fresh = [row for row in rows if row.last_token < 0 and len(everyone) > 1]
        text = explain(error, everyone)
        for row in rows:
            if row not in fresh:
                row.sink.end(error=text)
        with self._changed:
            for row in fresh:
                row.alone = True
            self._line.put_back(fresh)
            self._tell_places()
        free_memory(self._device)

    def _step(self, running: Batch) -> None:
        """One more token for every running row."""
        try:
            logits = running.step(self._forward)
        except Exception as error:  # noqa: BLE001  (a model may raise anything; its rows fail, the engine goes on)
            text = explain(error, running.rows)
            newest = max(running.rows, key=lambda row: row.number)
            failed = [newest] if is_out_of_memory(error) else list(running.rows)
            for row in self._leave(running, failed):
                row.sink.end(error=text)
            free_memory(self._device)
            return
        self._hand_out(running, logits)
        if not running.rows:
            self._running = None

    def _hand_out(self, batch: Batch, logits: torch.Tensor) -> None:
        """Choose a token for each row of `batch` and take out the rows that are complete."""
        rows = list(batch.rows)
        tokens = choose(logits, [row.drawing for row in rows])
        over: list[tuple[Row, str | None]] = []
        for row, token in zip(rows, tokens, strict=True):
            row.last_token = token
            if token == INVALID:
                over.append((row, NOT_NUMBERS))
                continue
            try:
                if row.sink.take(token):
                    over.append((row, None))
            except Exception as error:  # a row's reader must not stop the other rows
                logger.exception("A row could not take its token.")
                over.append((row, FAILED.format(error=error)))
        self._leave(batch, [row for row, _ in over])
        for row, problem in over:
            row.sink.end(error=problem)

    def _leave(self, batch: Batch, rows: list[Row]) -> list[Row]:
        if rows:
            batch.remove(rows)
        if not batch.rows:
            self._opening = None if batch is self._opening else self._opening
            self._running = None if batch is self._running else self._running
        return rows

    def _budget(self) -> int:
        return self._limits.prefill_tokens * (1 if self._running is not None else 4)

    def _free_rows(self) -> int:
        return max(0, self._limits.rows - len(self._busy()))

    def _busy(self) -> list[Row]:
        return [row for batch in self._batches() for row in batch.everyone]

    def _batches(self) -> list[Batch]:
        return [batch for batch in (self._opening, self._running) if batch is not None]

    def _tell_places(self) -> None:
        """Tell those in line their place. The caller holds the lock."""
        for place, row in enumerate(self._line, start=1):
            row.sink.move_up(place)

    def _fail_everything(self, text: str) -> None:
        with self._changed:
            rows = self._line.clear()
        rows += self._busy()
        self._opening = self._running = None
        for row in rows:
            row.sink.end(error=text)
