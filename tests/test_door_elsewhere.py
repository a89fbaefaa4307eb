"""The HTTP door with the ledger on PostgreSQL: replies, receipts and feedback from several clients at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from doorway import door_at

pytest_plugins = ("tests.postgres",)
pytestmark = pytest.mark.postgres


def test_replies_and_feedback_of_many_clients_are_all_in_postgresql(tmp_path, postgres_url):
    def use(number: int) -> str:
        reply = door.ask(f"Question {number}", user=f"client-{number % 3}")
        said = door.tell(
            reply.thumbprint["receipt"], thumb="up" if number % 2 else "down", rater=f"client-{number % 3}"
        )
        assert said.status_code == 200, said.text
        return reply.thumbprint["turn_id"]

    with door_at(tmp_path / "data", database_url=postgres_url, max_waiting=64) as door:
        with ThreadPoolExecutor(8) as clients:
            turns = list(clients.map(use, range(24)))
        ledger = door.studio.ledger
        assert len(set(turns)) == 24 and door.turns() == 24
        rated = {rating.turn_id: rating.value for rating in ledger.ratings()}
        assert rated == {turn: 1 if number % 2 else -1 for number, turn in enumerate(turns)}
        assert len({rating.rater for rating in ledger.ratings()}) == 3
    with door_at(tmp_path / "again", database_url=postgres_url) as door:
        assert door.turns() == 24
