"""Everything that was said, or nothing: the strategy for who wants no word left out.

It refuses, with a way out, where the conversation has grown longer than the model can read. It adds nothing.
"""

from __future__ import annotations

from memory.strategies.preparing import Prepared, Request, prepare
from memory.window import WindowError


class Everything:
    """The whole path."""

    name = "everything"

    def prepare(self, request: Request) -> Prepared:
        """The whole path. Raises `WindowError` where it does not fit."""
        prepared = prepare(request)
        if prepared.first > 0:
            raise WindowError(
                f"The whole conversation is longer than the {request.budget} tokens that the model has room for. "
                "Choose another way of remembering for this conversation, or start a new one."
            )
        return prepared
