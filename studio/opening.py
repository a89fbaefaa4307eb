"""The studio while it opens: the page is up at once, the model follows, and everybody can ask how far it is.

Loading the libraries and the model takes seconds; the page need not wait for it. `Opening` builds the studio
on a thread of its own and holds either the studio, or the reason why there is none. It knows nothing of the
page.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from studio.wording import reason_of

if TYPE_CHECKING:
    from studio.build import Studio

logger = logging.getLogger(__name__)


class Opening:
    """A studio that is being built. `build` is called once, on a thread, by `begin`."""

    def __init__(self, build: Callable[[], Studio]) -> None:
        self._build = build
        self._ended = threading.Event()
        self._studio: Studio | None = None
        self._problem = ""

    def begin(self) -> Opening:
        """Start building; returns at once."""
        threading.Thread(target=self._run, name="opening", daemon=True).start()
        return self

    @property
    def studio(self) -> Studio | None:
        """The studio, or None while it is being built and when that failed."""
        return self._studio

    @property
    def problem(self) -> str:
        """Why there will be no studio; empty while there may be one."""
        return self._problem

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the studio is there or has failed; False when `timeout` seconds passed first."""
        return self._ended.wait(timeout)

    def close(self) -> None:
        """Close the studio, waiting for it first if it is still being built."""
        self._ended.wait(30)
        if self._studio is not None:
            self._studio.close()

    def _run(self) -> None:
        try:
            self._studio = self._build()
        except OSError as error:  # the model, the disk or the database: said in a sentence, with the way out
            self._problem = reason_of(error)
            logger.error("The studio could not be opened. %s", self._problem)
        except Exception as error:
            logger.exception("The studio could not be opened")
            self._problem = reason_of(error)
        finally:
            self._ended.set()


def opened(studio: Studio) -> Opening:
    """An opening that is over: for a studio that somebody else has built."""
    opening = Opening(lambda: studio)
    opening._run()
    return opening
