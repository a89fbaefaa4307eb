"""What a retraining would make of everything said so far: so many pairs, so many kept aside, so many left out and why.

The ledger is read whole for this. While it is short that is done when somebody asks; a long one is counted in the
background, and until that has ended the last count is told, so that no page ever waits for it. This module starts no
training and decides nothing: whether the amount is enough is `training.trigger`'s to say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from memory.database import StorageError
from memory.ledger import Ledger
from studio.settings import StudioSettings
from training.trigger import Readiness, readiness
from training.views import preference_view, read_feedback

logger = logging.getLogger(__name__)

COUNTED_AT_ONCE = 2_000
"""Ledgers with up to so many events are counted when somebody asks."""
_REST = 20.0
"""A count in the background is followed by so many times its own length without one."""


@dataclass(frozen=True)
class Prospect:
    """What the ledger amounts to as of event `sequence`: training and held-out pairs, and judgements that made none."""

    sequence: int
    readiness: Readiness
    train: int = 0
    heldout: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


class Prospects:
    """Counts what one ledger amounts to under `settings`. Thread-safe."""

    def __init__(
        self,
        settings: StudioSettings,
        ledger: Ledger,
        *,
        at_once: int = COUNTED_AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._ledger = settings, ledger
        self._at_once, self._clock = at_once, clock
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._known: Prospect | None = None
        self._rests_until = 0.0

    def latest(self) -> Prospect:
        """The last count, brought up to date first where that is quick. Raises `StorageError`."""
        sequence = self._ledger.last_sequence()
        known = self._known
        if known is not None and known.sequence == sequence:
            return known
        if sequence <= self._at_once:
            return self.now()
        if self._clock() >= self._rests_until and self._counting.acquire(blocking=False):
            threading.Thread(target=self._count_aside, name="prospects", daemon=True).start()
        return known if known is not None else self._provisional()

    def now(self) -> Prospect:
        """What the ledger amounts to at this moment, however long it takes. Raises `StorageError`."""
        with self._lock:
            sequence = self._ledger.last_sequence()
            if self._known is None or self._known.sequence != sequence:
                self._known = self._count(sequence)
            return self._known

    def _count(self, sequence: int) -> Prospect:
        view = preference_view(
            read_feedback(self._ledger),
            share=self._settings.heldout_share,
            least=self._settings.min_heldout_pairs,
            by=self._settings.heldout_by,
        )
        return Prospect(
            sequence, readiness(view, self._settings), len(view.train), len(view.heldout), dict(view.dropped)
        )

    def _count_aside(self) -> None:
        begun = self._clock()
        try:
            self.now()
        except StorageError as error:  # The next look tries again.
            logger.warning("What there is to learn from could not be counted: %s", error)
        except Exception:
            logger.exception("What there is to learn from could not be counted")
        finally:
            ended = self._clock()
            self._rests_until = ended + _REST * (ended - begun)
            self._counting.release()

    def _provisional(self) -> Prospect:
        """What can be said before the first count of a long ledger."""
        have = self._ledger.counts().comparisons_decided
        said = f"Counting what there is to learn from: {have:,} decided comparisons and more. This takes a moment."
        return Prospect(0, Readiness(False, have, 0, said))
