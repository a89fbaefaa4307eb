"""The door's parts behind HTTP, put together: made once with the studio, closed with it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from memory.conversations import Conversations
from memory.ledger import Ledger
from studio.door.completions import Completions
from studio.door.judging import Judging
from studio.door.receipts import Receipts, open_receipts
from studio.policy.interface import Policy
from studio.serving import Serving
from studio.settings import StudioSettings


@dataclass(frozen=True)
class Door:
    """What answers requests, what takes feedback, and what signs receipts."""

    completions: Completions
    judging: Judging
    receipts: Receipts

    def close(self) -> None:
        """End the replies under way and write them down."""
        self.completions.close()


def open_door(
    settings: StudioSettings,
    *,
    policy: Policy,
    serving: Serving,
    conversations: Conversations,
    ledger: Ledger,
    new_id: Callable[[], str],
    rng: random.Random,
    clock: Callable[[], float],
) -> Door:
    """The door of one studio. Raises `ValueError` when the secret in the data folder is damaged."""
    receipts = open_receipts(settings.data_dir)
    completions = Completions(
        policy=policy,
        serving=serving,
        conversations=conversations,
        ledger=ledger,
        receipts=receipts,
        new_id=new_id,
        rng=rng,
        clock=clock,
    )
    judging = Judging(ledger, conversations, max_chars=settings.max_message_chars, clock=clock)
    return Door(completions, judging, receipts)
