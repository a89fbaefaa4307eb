"""Retrainings and promotions: how the studio and the trainer, two processes, tell each other where they are.

One run is live at a time, whoever asks and from whatever process; the database itself enforces it. A trainer
that has died is noticed at once where its process can be looked up, and by its silence otherwise. What is
served is the last promotion, and a rollback is a promotion of an earlier version. This module starts no
process, loads no adapter and does not know whether a promotion could be followed.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any, get_args

from sqlalchemy import Connection, RowMapping, select
from sqlalchemy.exc import IntegrityError

from memory.database import Database, StorageError, UnknownRecord
from memory.schema import FINAL_STATES, Promotion, Run, RunState
from memory.tables import promotions, runs

SILENCE_SECONDS = 60.0
"""A trainer that cannot be looked up is given up after so long without a heartbeat."""


class RunInProgress(RuntimeError):
    """A retraining is already under way; one at a time."""


class RunEnded(RuntimeError):
    """The run has ended and cannot be changed any more. A trainer that sees this must stop."""


class UnknownRun(UnknownRecord):
    """No run has this id."""


class Runs:
    """All retrainings and promotions of one database.

    `host` names this machine, so that a process number is only ever looked up where it means something. Every
    writer raises `StorageError` when the database cannot take it.
    """

    def __init__(self, database: Database, *, host: str | None = None) -> None:
        self._database = database
        self._host = host or socket.gethostname()

    def queue(self, method: str, parent_version: str, folder_root: Path, requested_by: str) -> Run:
        """Begin a run and make its folder ``folder_root/<run id>``.

        Raises `RunInProgress` while another run is live, `StorageError` where the folder cannot be made.
        """
        run_id = self._database.new_id()
        now = self._database.clock()
        folder = Path(folder_root) / run_id
        values = {
            "id": run_id,
            "live": 1,
            "state": "queued",
            "method": method,
            "parent_version": parent_version,
            "progress": 0.0,
            "message": "Waiting for the trainer to start.",
            "folder": str(folder),
            "requested_by": requested_by,
            "cancel_requested": False,
            "host": self._host,
            "created_at": now,
            "heartbeat_at": now,
        }
        self.active()
        try:
            with self._database.write() as connection:
                connection.execute(runs.insert().values(**values))
                _make_folder(folder)
        except IntegrityError:
            raise RunInProgress(
                "A retraining is already under way. Wait for it to end, or cancel it, and try again."
            ) from None
        return self.get(run_id)

    def get(self, run_id: str) -> Run:
        """The run as last reported. Raises `UnknownRun`."""
        with self._database.read() as connection:
            return _run(_row(connection, run_id))

    def active(self) -> Run | None:
        """The live run, or None. One whose trainer has died is marked failed here, and is live no more."""
        with self._database.read() as connection:
            row = connection.execute(select(runs).where(runs.c.live == 1)).mappings().first()
        if row is None:
            return None
        now = self._database.clock()
        if not _has_died(row, now=now, host=self._host):
            return _run(row)
        # Only if it is still as silent as it was when judged: the trainer may have spoken meanwhile.
        unchanged = (
            (runs.c.id == row["id"]) & (runs.c.live == 1) & (runs.c.heartbeat_at == row["heartbeat_at"])
        )
        ending = {"live": None, "state": "failed", "message": _died_message(row), "ended_at": now}
        with self._database.write() as connection:
            connection.execute(runs.update().where(unchanged).values(**ending))
            row = connection.execute(select(runs).where(runs.c.live == 1)).mappings().first()
        return None if row is None else _run(row)

    def update(
        self,
        run_id: str,
        *,
        state: RunState | None = None,
        progress: float | None = None,
        message: str | None = None,
        version: str | None = None,
        pid: int | None = None,
    ) -> None:
        """Report where a run is; what is None stays. Counts as a heartbeat. `pid` is a process of this
        machine.

        Raises `UnknownRun`, `RunEnded` once the run is in a final state, `ValueError` for values that cannot
        be.
        """
        if state is not None and state not in get_args(RunState):
            raise ValueError(f"Run state is {state!r}; expected one of {', '.join(get_args(RunState))}.")
        if progress is not None and not 0.0 <= progress <= 1.0:
            raise ValueError(f"Run progress is {progress!r}; expected a share from 0 to 1.")
        now = self._database.clock()
        given = {"state": state, "progress": progress, "message": message, "version": version, "pid": pid}
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        values["heartbeat_at"] = now
        if pid is not None:
            values |= {"process": process_identity(pid), "host": self._host}
        if state in FINAL_STATES:
            values |= {"live": None, "ended_at": now}
        with self._database.write() as connection:
            changed = connection.execute(
                runs.update().where(runs.c.id == run_id, runs.c.live == 1).values(**values)
            )
            if changed.rowcount == 0:
                row = _row(connection, run_id)
                raise RunEnded(
                    f"Run {run_id!r} has ended as {row['state']!r} ({row['message']}) and cannot be changed. "
                    "Stop this trainer, or queue a new run."
                )

    def heartbeat(self, run_id: str) -> None:
        """Say that the trainer is alive. Nothing happens once the run has ended."""
        now = self._database.clock()
        with self._database.write() as connection:
            connection.execute(
                runs.update().where(runs.c.id == run_id, runs.c.live == 1).values(heartbeat_at=now)
            )

    def request_cancel(self, run_id: str) -> None:
        """Ask the trainer to stop; it decides when. Nothing happens once the run has ended. Raises
        `UnknownRun`."""
        with self._database.write() as connection:
            _row(connection, run_id)
            connection.execute(
                runs.update().where(runs.c.id == run_id, runs.c.live == 1).values(cancel_requested=True)
            )

    def cancel_requested(self, run_id: str) -> bool:
        """Whether somebody asked the run to stop. Raises `UnknownRun`."""
        return self.get(run_id).cancel_requested

    def promote(self, version: str, *, actor: str, reason: str) -> Promotion:
        """From now on `version` is to be served."""
        values = {"version": version, "actor": actor, "reason": reason, "created_at": self._database.clock()}
        with self._database.write() as connection:
            row = (
                connection.execute(promotions.insert().returning(promotions).values(**values))
                .mappings()
                .one()
            )
        return Promotion(**row)

    def served(self) -> Promotion | None:
        """The last promotion, or None while only the base was ever served."""
        found = self.promotions(limit=1)
        return found[0] if found else None

    def promotions(self, limit: int = 100) -> list[Promotion]:
        """The latest promotions, newest first."""
        query = select(promotions).order_by(promotions.c.sequence.desc()).limit(limit)
        with self._database.read() as connection:
            return [Promotion(**row) for row in connection.execute(query).mappings()]

    def list(self, limit: int = 50) -> list[Run]:
        """The latest runs, newest first."""
        query = select(runs).order_by(runs.c.sequence.desc()).limit(limit)
        with self._database.read() as connection:
            return [_run(row) for row in connection.execute(query).mappings()]


def process_identity(pid: int) -> str | None:
    """What tells a process from a later one with the same number: its start time, where the system shows it.

    None for a process that is gone, or that has ended and only waits to be collected; "" where `pid` runs and
    the system does not show when it started.
    """
    try:
        # Linux, proc(5): after the name in parentheses come the state (field 3) and the start time (22).
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = status.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if os.name == "nt":  # Signal 0 is no question there: it ends the process.
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:
        return ""
    except OSError:
        return None
    return ""


def _has_died(row: RowMapping, *, now: float, host: str) -> bool:
    """Whether a live run's trainer is gone: its process, where that is on this machine; else it is silent too long."""
    silent: bool = now - row["heartbeat_at"] > SILENCE_SECONDS
    if row["pid"] is None or row["host"] != host:
        return silent
    identity = process_identity(row["pid"])
    gone: bool = identity is None or identity != row["process"]
    return gone and (silent or row["process"] is not None)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            error.errno or errno.EIO,
            f"The run's folder {folder} cannot be made ({error.strerror}). Make its parent writable, or "
            "choose another THUMBPRINT_DATA_DIR.",
        ) from error


def _died_message(row: RowMapping) -> str:
    if row["pid"] is None:
        return "The trainer never started. Its log.txt may say why."
    return "The trainer died: it stopped reporting and its process is gone. Its log.txt may say why."


def _row(connection: Connection, run_id: str) -> RowMapping:
    row = connection.execute(select(runs).where(runs.c.id == run_id)).mappings().first()
    if row is None:
        raise UnknownRun(f"There is no run {run_id!r}.")
    return row


def _run(row: RowMapping) -> Run:
    return Run(**{name: row[name] for name in Run.__dataclass_fields__})
