"""A thread that looks after something every few seconds, and goes on when a look fails.

What it may expect to fail is logged in a line, once for each reason; anything else with its traceback. It knows nothing
of what is looked at.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Lookout:
    """Calls `look` every `seconds` from `start` to `stop`. `failing` says in the log what does not work when it raises
    one of `expected`."""

    def __init__(
        self,
        name: str,
        look: Callable[[], object],
        *,
        seconds: float,
        failing: str,
        expected: tuple[type[Exception], ...],
    ) -> None:
        self._look = look
        self._seconds = seconds
        self._failing = failing
        self._expected = expected
        self._problem = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; waits for a look under way. Idempotent, and harmless before `start`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self._look()
                self._problem = ""
            except self._expected as error:
                if str(error) != self._problem:
                    logger.error("%s It is tried again: %s", self._failing, error)
                self._problem = str(error)
            except Exception:  # the thread's outermost boundary: logged, and the chat goes on
                logger.exception("%s It is tried again.", self._failing)
