"""As many of the newest turns as the budget holds. What does not fit any more is not spoken of."""

from __future__ import annotations

from memory.strategies.preparing import Prepared, Request, prepare


class TokenBudget:
    """The newest turns that fit."""

    name = "token_budget"

    def prepare(self, request: Request) -> Prepared:
        """The newest turns that fit."""
        return prepare(request)
