"""What raters are asked to look for: a text that an operator edits as a file, and which version of it was shown when.

A version is named by the hash of its text, and each text is kept in the ledger when it is first shown, so that what a
judgement was given under can be read years later. Editing the file takes effect at once. This module knows no page and
no judgement.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from memory.ledger import Ledger
from memory.schema import Occurrence

logger = logging.getLogger(__name__)

DEFAULT = Path(__file__).with_name("assets") / "guidelines.md"
_NOTED = "guidelines"


@dataclass(frozen=True)
class Guideline:
    """A text in Markdown and the name of its version."""

    version: str
    text: str


class Guidelines:
    """The guidelines in the file at `path` (None: those that ship). Thread-safe.

    Raises `ValueError` when the file cannot be read at the start; one that breaks later leaves the text as it was.
    """

    def __init__(
        self, ledger: Ledger, path: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger, self._clock = ledger, clock
        self._path = path if path is not None else DEFAULT
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._known: dict[str, Guideline] = {}
        try:
            self._current = self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"The guidelines at {self._path} cannot be read ({error}). Correct THUMBPRINT_GUIDELINES."
            ) from error

    def current(self) -> Guideline:
        """What raters are shown now. Raises `StorageError` when a new text cannot be kept."""
        with self._lock:
            try:
                self._current = self._read()
            except (OSError, UnicodeDecodeError) as error:
                logger.warning("The guidelines at %s cannot be read any more: %s", self._path, error)
            current = self._current
            if current.version not in self._known:
                self._keep(current)
                self._known[current.version] = current
            return current

    def shown(self, version: object) -> str:
        """The version that a page says it showed; the current one where it cannot have shown that."""
        current = self.current()
        return version if isinstance(version, str) and version in self._known else current.version

    def _read(self) -> Guideline:
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return self._current
        text = self._path.read_text(encoding="utf-8")
        self._stamp = stamp
        return Guideline(f"g-{hashlib.sha256(text.encode()).hexdigest()[:12]}", text)

    def _keep(self, guideline: Guideline) -> None:
        if self._ledger.noted(_NOTED, guideline.version) is None:
            detail = {"text": guideline.text}
            self._ledger.note(Occurrence(_NOTED, guideline.version, "studio", self._clock(), detail))
