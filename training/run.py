"""The command that retrains for the studio: ``python -m training.run``. One whole iteration, then it ends.

It reads the settings and the studio's data folder, claims or makes the run's row, and turns the outcome into an exit
code: 0 published, 3 rejected by the gate, 4 refused (too little data), 130 cancelled, 1 failed. A running studio
notices the promotion by itself. ``python -m training.dpo`` and its like (`training.command`) do the same for a person,
with checkpoints, datasets and a report beside. How a run is carried out is `training.execution`'s to know.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic import ValidationError

from memory.database import NewerDatabaseError, StorageError, UnknownRecord, open_database
from memory.ledger import Ledger
from memory.runs import RunEnded, RunInProgress, Runs
from memory.settings import load_settings
from training.execution import EXIT_CODES, carry_out, claim, together
from training.iteration import served_version
from training.processes import Processes
from training.settings import TrainingSettings
from training.views import read_feedback


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
    return together(lambda processes: _lead(flags, processes))


def _lead(flags: Sequence[str] | None, processes: Processes) -> int:
    try:
        settings = load_settings(RunSettings, sys.argv[1:] if flags is None else flags)
    except ValidationError as error:
        print(f"These settings do not work:\n{error}", file=sys.stderr)
        return EXIT_CODES["failed"]
    try:
        database = open_database(settings.resolved_database_url)
    except (StorageError, NewerDatabaseError, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    try:
        runs = Runs(database)
        if settings.run_id:
            run = runs.get(settings.run_id)
        else:
            run = runs.queue(settings.method, served_version(runs), settings.runs_dir, settings.requested_by)
        run = claim(run, runs)
        outcome = carry_out(
            run,
            settings,
            database=database,
            feedback=lambda: read_feedback(Ledger(database)),
            processes=processes,
        )
        return EXIT_CODES[outcome.state]
    except (RunInProgress, RunEnded, UnknownRecord, StorageError) as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
