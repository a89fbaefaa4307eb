"""An event loop on a thread of its own, for a policy whose callers are any threads and whose work is waiting.

It knows nothing of what runs on it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class LoopThread:
    """Starts at once, and runs until `stop`."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run `work` on the loop; its result is in the future. After `stop` the future is cancelled."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop is closed
            work.close()
            future: Future[Result] = Future()
            future.cancel()
            return future

    def post(self, function: Callable[[], object]) -> None:
        """Call `function` on the loop soon. After `stop` it is not called."""
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:
            return

    def stop(self) -> None:
        """Cancel what still runs and end the thread. Idempotent; not to be called on the loop's own thread."""
        self.post(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()
