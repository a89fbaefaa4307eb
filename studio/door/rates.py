"""How much a client may ask in a minute: requests, and tokens read and written.

Requests are counted over a moving minute. Tokens are counted in minutes that begin with a client's first one, and what
a reply takes is known only when it has ended; so a client may overdraw by the replies under way, and then waits. The
counting is the library `limits`', in this process's memory. This module knows no HTTP.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, RateLimiter


@dataclass(frozen=True)
class Client:
    """Who asks, and what it may ask in a minute; 0: any number."""

    id: str
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


class RateExceeded(RuntimeError):
    """The client has asked too much; `retry_after` says in how many seconds it may ask again."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Rates:
    """Counts what clients ask. Thread-safe."""

    def __init__(self) -> None:
        storage = MemoryStorage()
        self._requests = MovingWindowRateLimiter(storage)
        self._tokens = FixedWindowRateLimiter(storage)

    def count_request(self, client: Client) -> None:
        """One request more. Raises `RateExceeded`, and then does not count it."""
        if client.requests_per_minute == 0:
            return
        most = RateLimitItemPerMinute(client.requests_per_minute)
        if not self._requests.hit(most, "requests", client.id):
            wait = _wait(self._requests, most, "requests", client.id)
            raise RateExceeded(
                f"This key may make {most.amount} requests a minute. Ask again in {wait} s.", retry_after=wait
            )

    def check_tokens(self, client: Client) -> None:
        """May a reply begin? Raises `RateExceeded` when this minute's tokens are used up."""
        if client.tokens_per_minute == 0:
            return
        most = RateLimitItemPerMinute(client.tokens_per_minute)
        if not self._tokens.test(most, "tokens", client.id):
            wait = _wait(self._tokens, most, "tokens", client.id)
            raise RateExceeded(
                f"This key may use {most.amount} tokens a minute. Ask again in {wait} s.", retry_after=wait
            )

    def spend(self, client: Client, tokens: int) -> None:
        """Count tokens that were read or written."""
        if client.tokens_per_minute and tokens:
            self._tokens.hit(
                RateLimitItemPerMinute(client.tokens_per_minute), "tokens", client.id, cost=tokens
            )


def _wait(limiter: RateLimiter, most: RateLimitItemPerMinute, *who: str) -> int:
    """Whole seconds until there is room again."""
    return max(1, math.ceil(limiter.get_window_stats(most, *who).reset_time - time.time()))
