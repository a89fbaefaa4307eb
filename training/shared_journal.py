"""The journal of a run that several processes carry out: the leading one writes, and all stop together.

A phase begins in all of them at once, and a wish to stop that was heard there ends all of them. It knows what a journal
is and nothing of what is trained.
"""

from __future__ import annotations

from typing import Any

from training.journal import Journal
from training.metrics import Phase
from training.processes import Processes


class SharedJournal(Journal):
    """`journal` in the leading process, None in the others; everybody calls the same methods at the same places."""

    def __init__(self, journal: Journal | None, processes: Processes) -> None:
        self._journal, self._processes = journal, processes
        self.seconds = {} if journal is None else journal.seconds
        self._check = processes.deferred(self._check_now)

    def begin(self, phase: Phase, message: str) -> None:
        """Enter a phase together."""
        self._processes.led(lambda: self._begin(phase, message))

    def end(self) -> None:
        """Leave the phase."""
        if self._journal is not None:
            self._journal.end()

    def advance(self, share: float, message: str, **values: Any) -> None:
        """Report; what goes wrong with it ends all at their next meeting."""
        self._processes.deferred(lambda: self._advance(share, message, values))()

    def check(self, *, at_once: bool = False) -> None:
        """Hear of a wish to stop; it ends all at their next meeting."""
        self._check()

    def _begin(self, phase: Phase, message: str) -> None:
        if self._journal is not None:
            self._journal.begin(phase, message)

    def _advance(self, share: float, message: str, values: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.advance(share, message, **values)

    def _check_now(self) -> None:
        if self._journal is not None:
            self._journal.check()
