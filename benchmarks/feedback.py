"""How long the Feedback room takes on a long ledger: opening it, filtering, searching, turning pages.

Fills a fresh ledger with judgements of every kind by many raters (in bulk; `benchmarks.ledger` measures writing), then
times each request as the page makes it. Runs as ``python -m benchmarks.feedback [--events 200000] [--rounds 5]
[--postgres]``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.ledger import database_url
from memory.database import Database, open_database
from memory.event_rows import Event
from memory.events import ranking_target
from memory.feedback_search import FeedbackSearch, Filter
from memory.intake import take_in
from memory.ledger import Ledger
from memory.schema import CRITERIA, Comparison, Message, Turn

REPLIES = (
    "A lighthouse warns ships of rocks and shallow water, so that they keep away from the coast at night.",
    "Put the eggs in cold water, bring it to the boil, and wait ten minutes. Do you want them soft or firm?",
    "I do not know. The weather in May changes from day to day, and nobody can tell it a month ahead.",
)
DAYS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="an SQLite file to fill, or to use again as it is")
    parser.add_argument("--postgres", action="store_true", help="measure PostgreSQL instead of SQLite")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        database_url(Path(folder), postgres=options.postgres) as url,
    ):
        database = open_database(f"sqlite:///{options.keep}" if options.keep else url)
        if not Ledger(database).last_sequence():
            fill(database, options.events)
        found = {name: timed(request, options.rounds) for name, request in requests(database)}
        database.close()
    for name, figures in found.items():
        median, most, worked = (1_000 * figures[key] for key in ("median", "most", "processor"))
        print(f"{name:32}{median:9.0f} ms   most {most:6.0f} ms   of processor {worked:6.0f} ms")
    print(
        json.dumps({"benchmark": "feedback", "events": options.events, "postgres": options.postgres, **found})
    )


def requests(database: Database) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What the page asks for, by what a person does."""
    search, ledger = FeedbackSearch(database), Ledger(database)
    middle = ledger.last_sequence() // 2
    for name, wanted in (
        ("the newest page", Filter()),
        ("a page in the middle", Filter(before=middle)),
        ("only critiques", Filter(kind="critique")),
        ("thumbs down of a version", Filter(kind="rating", value="-1", version="v0003")),
        ("one rater", Filter(rater="rater 7")),
        ("one day", Filter(day=DAYS // 2)),
        ("a common word", Filter(text="Lighthouse")),
        ("a word that nobody said", Filter(text="xylophone")),
    ):
        yield name, lambda wanted=wanted: search.page(wanted)  # type: ignore[misc]
    yield "the sums", lambda: (ledger.counts(), ledger.judgements_by_day(14))
    yield "by version", search.summary
    yield "by rater", search.raters


def timed(request: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Seconds of `request`, median and most, and of them this process's own processor time (SQLite works in it)."""
    taken, worked = [], []
    for _ in range(rounds):
        begun, busy = time.perf_counter(), time.process_time()
        request()
        taken.append(time.perf_counter() - begun)
        worked.append(time.process_time() - busy)
    return {
        "median": statistics.median(taken),
        "most": max(taken),
        "processor": statistics.median(worked),
    }


def fill(database: Database, count: int) -> None:
    """`count` judgements by 200 raters over `DAYS` days, of turns by five versions; one in eight changes a mind."""
    rng = random.Random(0)
    for start in range(0, count, 2_000):
        records: list[Any] = []
        for number in range(start, min(start + 2_000, count)):
            records += [(number, record) for record in _judged(number, rng)]
        take_in(database, records)


def _judged(number: int, rng: random.Random) -> list[Any]:
    about = number if rng.random() > 0.125 else max(0, number - 1)
    sides = [_turn(f"{about}{side}") for side in "ab"]
    at = 86_400.0 * (number % DAYS) + number
    rater = f"rater {rng.randrange(200)}"
    kind = rng.choice(("rating", "comparison", "score", "critique", "correction", "ranking"))
    target, criterion, records = sides[0].id, "", list[Any](sides)
    payload: dict[str, Any] = {"text": rng.choice(REPLIES)}
    if kind == "rating":
        payload = {"value": rng.choice((1, -1)), "reasons": ["too long"], "comment": ""}
    elif kind == "score":
        criterion, payload = rng.choice(CRITERIA), {"value": rng.randint(1, 5)}
    elif kind == "ranking":
        payload = {"turn_ids": [turn.id for turn in sides]}
        target = ranking_target((sides[0].id, sides[1].id))
    elif kind == "comparison":
        asked = _comparison(f"c{about}", *sides)
        target, records = asked.id, [*records, asked]
        payload = {"label": rng.choice(("A", "B", "A", "B", "tie")), "seconds": 4.0, "early": False}
    said = Event("judgement", kind, target, criterion, rater, at, payload, "g-1", None)
    return [*records, said]


def _turn(name: str) -> Turn:
    chosen = random.Random(name)
    return Turn(
        id=f"turn {name}",
        conversation_id=f"conversation {int(name[:-1]) // 4}",
        prompt=(Message("user", "What do you think of it?"),),
        completion=f"{chosen.choice(REPLIES)} {chosen.choice(REPLIES)} ({name})",
        policy_version=f"v000{chosen.randrange(1, 6)}",
        fingerprint="ab12cd34",
        sampling={"temperature": 0.8},
        prompt_tokens=12,
        completion_tokens=48,
        finish="stop",
        created_at=0.0,
    )


def _comparison(name: str, first: Turn, second: Turn) -> Comparison:
    return Comparison(
        id=name,
        conversation_id=first.conversation_id,
        prompt=first.prompt,
        turn_A=first.id,
        turn_B=second.id,
        completion_A=first.completion,
        completion_B=second.completion,
        version_A=first.policy_version,
        version_B=second.policy_version,
        shown_first="A",
        created_at=0.0,
    )


if __name__ == "__main__":
    main()
