"""The sums of the Feedback room, taken once for everybody who looks at it.

On a long ledger they take a part of a second, and the room is redrawn every other second for each visitor; so they are
taken anew only when something was said, and not before ten times as long as they took has passed. Reading only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memory.feedback_search import FeedbackSearch, RaterRow, Summary
from memory.ledger import Ledger
from memory.schema import FeedbackCounts

DAYS = 14
RATERS = 12
LONG = 20_000
"""Ledgers with more events than this are not summed up at every look."""
_REST = 10.0


@dataclass(frozen=True)
class Sums:
    """How much of everything there is: in all, by day (ISO date, kind, count), by version, and by rater."""

    sequence: int
    counts: FeedbackCounts
    by_day: Sequence[tuple[str, str, int]]
    by_version: Summary
    raters: Sequence[RaterRow]


class FeedbackSums:
    """The sums of one ledger. Thread-safe; raises `StorageError`."""

    def __init__(
        self,
        ledger: Ledger,
        search: FeedbackSearch,
        *,
        long: int = LONG,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._search, self._long, self._clock = ledger, search, long, clock
        self._lock = threading.Lock()
        self._known: Sums | None = None
        self._rests_until = 0.0

    def latest(self) -> Sums:
        """The sums; of a long ledger at most some seconds old."""
        with self._lock:
            sequence, begun = self._ledger.last_sequence(), self._clock()
            known = self._known
            resting = sequence > self._long and begun < self._rests_until
            if known is not None and (known.sequence == sequence or resting):
                return known
            self._known = Sums(
                sequence,
                self._ledger.counts(),
                self._ledger.judgements_by_day(DAYS),
                self._search.summary(),
                self._search.raters(limit=RATERS),
            )
            self._rests_until = self._clock() + _REST * (self._clock() - begun)
            return self._known
