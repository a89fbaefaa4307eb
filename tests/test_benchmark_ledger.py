"""The ledger's benchmark finds nothing lost when a writer is killed, and would say so if something were."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ledger
from memory.database import open_database
from memory.events import kind_of
from memory.intake import take_in

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("where", [[], pytest.param(["--postgres"], marks=pytest.mark.postgres)])
def test_every_acknowledged_event_survives_a_killed_writer(where: list[str]) -> None:
    if where:
        from tests.postgres import NoServer, private_server

        try:
            with private_server():
                pass
        except NoServer as missing:
            pytest.skip(f"{missing}: writing to PostgreSQL was not tested")
    words = [sys.executable, "-m", "benchmarks.ledger", "--writers", "3", "--seconds", "2", "--json", *where]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=250)
    result = json.loads(done.stdout)
    assert result["acknowledged"] > 10
    assert (result["lost"], result["unasked"], result["wrong"]) == (0, 0, 0)


def test_a_lost_or_changed_event_would_be_found(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    database = open_database(url)
    kept = ledger.Ledger(database)
    take_in(database, [(number, ledger._turn(number)) for number in range(ledger.TURNS)])
    rng = random.Random(0)
    log = tmp_path / "acknowledged-0"
    for number in range(6):
        said = ledger._judgement(rng, rater="rater 0", at=float(number))
        if number < 5:
            kept.record(said)
    log.write_text("0\n1\n2\n3\n4\n5\n")
    assert ledger._compare(url, [log])["lost"] == 1
    log.write_text("0\n1\n")
    assert ledger._compare(url, [log])["unasked"] == 2
    first = (*kept.ratings(), *kept.scores(), *kept.critiques())[0]
    kept.retract(kind_of(first), first.turn_id, first.rater)
    log.write_text("0\n1\n2\n3\n4\n")
    assert ledger._compare(url, [log])["wrong"] == 1
    database.close()
