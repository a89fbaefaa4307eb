"""Begins retrainings without anybody's asking, as the settings say: after so many judgements, or at set times.

It asks `training.schedule` when, and `studio.retraining` to begin; the database sees to it that there is one at a time.
A retraining that fails or is refused by the gate is not tried again before there is something new to learn from.
"""

from __future__ import annotations

import logging

from memory.database import Database, StorageError
from memory.runs import RunInProgress, Runs
from memory.votes import judged_since
from studio.lookout import Lookout
from studio.retraining import Retraining, RetrainingRefused
from training.schedule import Due, Plan, due

logger = logging.getLogger(__name__)

REQUESTED_BY = "schedule"


class Scheduler:
    """Looks every `poll_seconds` whether a retraining is due. Thread-safe; the clock is the database's."""

    def __init__(
        self,
        plan: Plan,
        retraining: Retraining,
        runs: Runs,
        database: Database,
        *,
        poll_seconds: float = 5.0,
    ) -> None:
        self._plan = plan
        self._retraining = retraining
        self._runs = runs
        self._database = database
        self._opened_at = database.clock()
        self._lookout = Lookout(
            "scheduler",
            self.look,
            seconds=poll_seconds,
            failing="Whether a retraining is due is not known.",
            expected=(StorageError,),
        )

    def start(self) -> None:
        """Begin to look, if there is anything to look for."""
        if self._plan.by_itself:
            self._lookout.start()

    def stop(self) -> None:
        """Look no more. A retraining under way goes on."""
        self._lookout.stop()

    def standing(self) -> Due:
        """Whether a retraining is due now, and when one will be."""
        runs = self._runs.list(limit=1)
        last = runs[0].created_at if runs else self._opened_at
        # Before the first retraining every judgement is new, those before the studio was opened too.
        judged = judged_since(self._database, last if runs else 0.0)
        return due(self._plan, judged=judged, last=last, now=self._database.clock())

    def look(self) -> bool:
        """Begin a retraining if one is due and there is enough to learn from; say whether it did. Raises
        `StorageError`."""
        if (
            self._runs.active() is not None
            or not self.standing().now
            or not self._retraining.readiness().ready
        ):
            return False
        try:
            run = self._retraining.start(REQUESTED_BY)
        except (RunInProgress, RetrainingRefused) as error:
            logger.info("A retraining that was due did not begin: %s", error)
            return False
        logger.info("Retraining %s begins by itself.", run.id)
        return True
