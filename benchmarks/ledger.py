"""How many events a second the ledger takes from several writing processes at once, and whether any is ever lost.

Every writer is a process of its own with its own connection, as studios on several machines would be; every event is a
transaction of its own, and counts when `Ledger.record` has returned. Half-way through, one writer is killed with
SIGKILL. Afterwards every event that was acknowledged, also by the one that was killed, must be in the log, every
judgement must stand as its last event says, and there must be no event that nobody made. Runs as ``python -m
benchmarks.ledger [--writers 8] [--seconds 10] [--postgres] [--json]``: on SQLite, or on a private PostgreSQL server
with its default durability. It knows nothing of how the ledger works inside.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memory.database import open_database
from memory.ledger import Ledger
from memory.schema import CRITERIA, Critique, Judgement, Message, Rating, Score, Turn

ROOT = Path(__file__).resolve().parent.parent
TURNS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--postgres", action="store_true", help="measure PostgreSQL instead of SQLite")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--write", nargs=3, metavar=("URL", "NUMBER", "LOG"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write[0], int(options.write[1]), Path(options.write[2]))
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        database_url(Path(folder), postgres=options.postgres) as url,
    ):
        result = measure(url, Path(folder), writers=options.writers, seconds=options.seconds)
    if not options.json:
        print(
            f"{result['events_per_second']:,.0f} events a second from {options.writers} writers on "
            f"{result['database']}, {result['cpu_milliseconds_per_event']:.2f} ms of processor each; "
            f"{result['acknowledged']:,} acknowledged, {result['lost']} lost, {result['unasked']} that nobody made, "
            f"{result['wrong']} judgements that stand wrongly."
        )
    print(json.dumps({"benchmark": "ledger", **result}))


@contextmanager
def database_url(folder: Path, *, postgres: bool) -> Iterator[str]:
    """A fresh database: a file in `folder`, or on a PostgreSQL server of its own."""
    if not postgres:
        yield f"sqlite:///{folder / 'thumbprint.db'}"
        return
    from tests.postgres import private_server

    with private_server() as address:
        yield f"postgresql+psycopg://postgres@{address}/postgres"


def measure(url: str, folder: Path, *, writers: int, seconds: float) -> dict[str, Any]:
    """Let the writers write, kill the first of them half-way, and compare the log with what was acknowledged."""
    database = open_database(url)
    ledger = Ledger(database)
    for number in range(TURNS):
        ledger.record_turn(_turn(number))
    logs = [folder / f"acknowledged-{number}" for number in range(writers)]
    children = [_start(url, number, log) for number, log in enumerate(logs)]
    for log in logs:
        while not log.exists() or not log.stat().st_size:
            time.sleep(0.01)
    begun, before = time.monotonic(), sum(map(_lines, logs))
    time.sleep(seconds / 2)
    children[0].send_signal(signal.SIGKILL)
    time.sleep(seconds / 2)
    rate = (sum(map(_lines, logs)) - before) / (time.monotonic() - begun)
    for child in children[1:]:
        child.send_signal(signal.SIGTERM)
    for child in children:
        child.wait(60)
    result = _compare(url, logs)
    database.close()
    costs = [float(log.with_suffix(".cpu").read_text(encoding="utf-8")) for log in logs[1:]]
    return {
        "database": url.split(":", 1)[0].split("+")[0],
        "writers": writers,
        "events_per_second": rate,
        "cpu_milliseconds_per_event": 1_000 * sum(costs) / len(costs),
        "load": os.getloadavg()[0],
        **result,
    }


def write(url: str, number: int, log: Path) -> None:
    """Record until told to stop, and put down every event that was acknowledged."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    ledger, rng = Ledger(open_database(url)), random.Random(number)
    begun = time.process_time()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    made = 0
    while not stopped:
        judgement = _judgement(rng, rater=f"rater {number}", at=float(made))
        ledger.record(judgement)
        os.write(out, f"{made}\n".encode())
        made += 1
    log.with_suffix(".cpu").write_text(str((time.process_time() - begun) / max(made, 1)), encoding="utf-8")


def _judgement(rng: random.Random, *, rater: str, at: float) -> Judgement:
    turn = f"turn {rng.randrange(TURNS)}"
    kind = rng.randrange(3)
    if kind == 0:
        return Rating(turn, rng.choice((-1, 1)), rater, at, ("too long",), "As I said before.")
    if kind == 1:
        return Score(turn, rng.choice(CRITERIA), rng.randint(1, 5), rater, at)
    return Critique(turn, f"What I think of it the time number {at:.0f}.", rater, at)


def _turn(number: int) -> Turn:
    return Turn(
        id=f"turn {number}",
        conversation_id=f"conversation {number // 4}",
        prompt=(Message("user", "How long does tea take?"),),
        completion="Three minutes for green tea, five for black. " * 4,
        policy_version="v0001",
        fingerprint="ab12cd34",
        sampling={"temperature": 0.8},
        prompt_tokens=12,
        completion_tokens=48,
        finish="stop",
        created_at=0.0,
    )


def _start(url: str, number: int, log: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "benchmarks.ledger", "--write", url, str(number), str(log)]
    return subprocess.Popen(words, cwd=ROOT)


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n")


def _compare(url: str, logs: list[Path]) -> dict[str, int]:
    """Replay each writer's random choices as far as it came, and look for the outcome in the ledger."""
    database = open_database(url)
    ledger = Ledger(database)
    acknowledged = lost = unasked = wrong = 0
    standing = {
        (said.rater, type(said).__name__, said.turn_id, getattr(said, "criterion", "")): said
        for said in (*ledger.ratings(), *ledger.scores(), *ledger.critiques())
    }
    with database.read() as connection:
        count = "SELECT rater, count(*) FROM events WHERE category = 'judgement' GROUP BY rater"
        logged = dict(connection.exec_driver_sql(count).all())
    for number, log in enumerate(logs):
        rater, rng, seen = f"rater {number}", random.Random(number), _lines(log)
        last: dict[tuple[str, str, str, str], Judgement] = {}
        there = logged.get(rater, 0)
        for at in range(there):
            said = _judgement(rng, rater=rater, at=float(at))
            last[(rater, type(said).__name__, said.turn_id, getattr(said, "criterion", ""))] = said  # type: ignore[union-attr]
        acknowledged += seen
        lost += max(0, seen - there)
        unasked += max(0, there - seen - 1)  # the event under way when the writer died may be there or not
        wrong += sum(standing.get(key) != said for key, said in last.items())
    database.close()
    return {"acknowledged": acknowledged, "lost": lost, "unasked": unasked, "wrong": wrong}


if __name__ == "__main__":
    main()
