"""Was the promotion a mistake? Watches people's blind votes between the served version and the one before it.

Votes are counted from the promotion on, and of each rater the first few only, so that nobody takes a version down
alone. When the evidence against the served version reaches `odds` to one, the version before it is served again, with
the reason in the history. It trains nothing, promotes nothing new and never looks at what a reply says.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

from memory.database import Database, StorageError
from memory.runs import Runs
from memory.schema import BASE_VERSION
from memory.votes import votes_between
from studio.lookout import Lookout
from studio.serving import Serving
from training.registry import AdapterRefused
from training.sequential import evidence_against

logger = logging.getLogger(__name__)

ACTOR = "watch"


@dataclass(frozen=True)
class Watched:
    """How `version` stands against `before` since its promotion. `evidence` is the e-value against it."""

    version: str
    before: str
    chosen: int
    passed_over: int
    evidence: float


class Watch:
    """Looks every `poll_seconds`. `odds` 0 only watches; of each rater the first `votes_each` count. Thread-safe."""

    def __init__(
        self,
        serving: Serving,
        runs: Runs,
        database: Database,
        *,
        odds: float,
        votes_each: int,
        poll_seconds: float = 2.0,
    ) -> None:
        self.odds = odds
        self._serving = serving
        self._runs = runs
        self._database = database
        self._votes_each = votes_each
        self._lookout = Lookout(
            "watch",
            self.look,
            seconds=poll_seconds,
            failing="The watch could not look or roll back.",
            expected=(AdapterRefused, StorageError),
        )

    def start(self) -> None:
        """Begin to look."""
        self._lookout.start()

    def stop(self) -> None:
        """Look no more."""
        self._lookout.stop()

    def standing(self) -> Watched | None:
        """How the served version stands; None while the base, or nothing else, was served before it."""
        promotion = self._runs.served()
        version, before = self._serving.current.version, self._serving.previous
        if promotion is None or promotion.version != version or version == BASE_VERSION or before is None:
            return None
        found = votes_between(self._database, version, before.version, since=promotion.created_at)
        given: Counter[str] = Counter()
        counted: Counter[str] = Counter()
        for vote in found:
            given[vote.rater] += 1
            counted[vote.version] += given[vote.rater] <= self._votes_each
        chosen, passed_over = counted[version], counted[before.version]
        return Watched(version, before.version, chosen, passed_over, evidence_against(chosen, passed_over))

    def look(self) -> bool:
        """Roll back if the evidence says so; say whether it did. Raises `AdapterRefused`, `StorageError`."""
        found = self.standing()
        if found is None or not self.odds or found.evidence < self.odds:
            return False
        votes = f"{found.passed_over} votes to {found.chosen}"
        reason = f"People preferred {_called(found.before)} to {found.version}, {votes}."
        self._serving.roll_back(found.before, actor=ACTOR, reason=reason)
        logger.warning("Rolled back: %s", reason)
        return True


def _called(version: str) -> str:
    return "the base model" if version == BASE_VERSION else version
