"""Work for the thread that owns the model, cut into slices, so that replies go on in between.

A job is a generator: what it does up to its next ``yield`` is a slice. This module knows no rows and no model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class Jobs:
    """Jobs in the order in which they came; one runs at a time. Its caller sees to it that only one thread advances."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[Generator[None, None, Any], Future[Any]]] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Generator[None, None, Result]) -> Future[Result]:
        """Put `job` behind the others; the future gets what it returns or raises."""
        future: Future[Result] = Future()
        self._jobs.append((job, future))
        return future

    def advance(self) -> bool:
        """Run the next slice of the first job; say whether there was one."""
        if not self._jobs:
            return False
        job, future = self._jobs[0]
        try:
            next(job)
            return True
        except StopIteration as end:
            result, failure = end.value, None
        except Exception as error:  # noqa: BLE001  (handed to whoever waits for the future)
            result, failure = None, error
        self._jobs.popleft()
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)
        return True

    def cancel(self) -> None:
        """Give up what has not ended."""
        while self._jobs:
            _, future = self._jobs.popleft()
            future.cancel()
