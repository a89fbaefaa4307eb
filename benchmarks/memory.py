"""What remembering costs, and what it brings back.

Prompts are prepared for conversations of 10, 1,000 and 100,000 messages in a database of a million, with the shipped
model's tokenizer counting; the same million is searched. The recall test plants facts in long dialogues and asks for
them, at an equal budget of tokens, of every strategy and of LangChain's deprecated memories. Runs as
``python -m benchmarks.memory [cost|search|recall ...] [--messages 1000000] [--database-url URL]
[--dialogues FILE.jsonl.gz]``. A folder given with --folder is kept and used again; without it nothing stays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.memory_filling import LENGTHS, OWNER, fill
from benchmarks.memory_recall import dialogues_in, recall_table
from memory.conversations import Conversations
from memory.database import Database, open_database
from memory.past import Followed
from memory.schema import Message
from memory.search import Search, StoredRecollection
from memory.strategies.choosing import strategy_for
from memory.strategies.preparing import Request, density, left_out_before
from memory.strategies.summarising import pick_sentences
from memory.strategies.summary import advance, words_for
from memory.summaries import StoredSummaries
from memory.window import Counter

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = ("last_turns:4", "token_budget", "summary", "recall", "summary+recall")
QUESTION = "What did you say about the old lighthouse by the harbour?"
QUERIES = {
    "a rare word": "zyzzyva",
    "a common word": "weather",
    "three words": "old lighthouse harbour",
    "an unfinished word": "lightho",
    "nothing there": "qqqqxx",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="*", default=["cost", "search", "recall"], metavar="cost|search|recall")
    parser.add_argument(
        "--messages", type=int, default=1_000_000, help="messages in the database (default 1,000,000)"
    )
    parser.add_argument(
        "--repeats", type=int, default=200, help="how often each prompt or search is made (default 200)"
    )
    parser.add_argument(
        "--budget", type=int, default=864, help="tokens of a prompt (default 864: models/mini)"
    )
    parser.add_argument(
        "--database-url", default="", help="an empty PostgreSQL database (default: SQLite in a folder)"
    )
    parser.add_argument("--folder", type=Path, help="where the filled SQLite database is kept")
    parser.add_argument(
        "--dialogues", type=Path, help="JSON lines with `prompt` and `dialogue`: filler for recall"
    )
    parser.add_argument("--facts", type=int, default=60, help="facts planted for each depth (default 60)")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    options = parser.parse_args()
    unknown = set(options.what) - {"cost", "search", "recall"}
    if unknown:
        parser.error(f"Asked for {', '.join(sorted(unknown))}; expected cost, search or recall.")
    count = counter()
    result: dict[str, Any] = {"benchmark": "memory", "budget": options.budget, "messages": options.messages}
    with ExitStack() as closing:
        if {"cost", "search"} & set(options.what):
            database, result["filling_seconds"] = filled(options, closing)
            if "cost" in options.what:
                result["cost"] = cost_table(database, count, budget=options.budget, repeats=options.repeats)
                show(options, "Preparing a prompt (ms)", result["cost"])
            if "search" in options.what:
                result["search"] = search_table(database, repeats=options.repeats)
                show(options, f"Searching {options.messages:,} messages (ms)", result["search"])
    if "recall" in options.what:
        filler = dialogues_in(options.dialogues)
        result["recall"] = recall_table(filler, count, budget=options.budget, facts=options.facts)
        show(options, f"Facts found again in prompts of {options.budget} tokens (share)", result["recall"])
    print(json.dumps(result | {"machine": describe()}))


def show(options: argparse.Namespace, title: str, rows: list[dict[str, Any]]) -> None:
    """A table for people."""
    if options.json:
        return
    names = list(rows[0])
    print(f"\n{title}")
    print("".join(f"{name:>26}" if at == 0 else f"{name:>14}" for at, name in enumerate(names)))
    for row in rows:
        cells = [f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name]) for name in names]
        print("".join(f"{cell:>26}" if at == 0 else f"{cell:>14}" for at, cell in enumerate(cells)))


def counter() -> Counter:
    """What counts tokens: the shipped model's tokenizer with its chat template, as the studio counts."""
    from training.base import load_tokenizer
    from training.prompt import count_tokens

    return partial(count_tokens, load_tokenizer(ROOT / "models" / "mini", template=""))


def filled(options: argparse.Namespace, closing: ExitStack) -> tuple[Database, float]:
    """The database with its messages, and the seconds that filling it took (0 where it was full already)."""
    url = options.database_url
    if not url:
        folder = options.folder or Path(
            closing.enter_context(tempfile.TemporaryDirectory(prefix="thumbprint-memory-"))
        )
        url = f"sqlite:///{folder / f'memory-{options.messages}.db'}"
    database = open_database(url)
    closing.callback(database.close)
    begun = time.perf_counter()
    made = fill(database, messages=options.messages)
    return database, round(time.perf_counter() - begun, 1) if made else 0.0


def cost_table(database: Database, count: Counter, *, budget: int, repeats: int) -> list[dict[str, Any]]:
    """Median and 99th percentile of preparing the prompt for the next message, by strategy and length."""
    conversations = Conversations(database)
    rows: list[dict[str, Any]] = []
    for name in STRATEGIES:
        row: dict[str, Any] = {"strategy": name}
        for length in LENGTHS:
            where = f"long{length}"
            summaries = StoredSummaries(database, where, maker="benchmark")
            strategy = strategy_for(
                name, summaries=summaries, recollection=StoredRecollection(database, OWNER)
            )

            seen = [4.0]

            def ask(where: str = where, strategy: Any = strategy, seen: list[float] = seen) -> Any:
                system = conversations.get(where).system_prompt
                past = Followed(conversations.past(where), Message("user", QUESTION))
                prepared = strategy.prepare(Request(system, past, budget, count, (), seen[0]))
                seen[0] = density(prepared)  # as the studio does
                return prepared

            if "summary" in name:
                summarise(database, where, summaries, count, budget=budget)
            row |= {f"{length:,} {key}": value for key, value in timed(ask, repeats).items()}
        rows.append(row)
    return rows


def summarise(
    database: Database, where: str, summaries: StoredSummaries, count: Counter, *, budget: int
) -> None:
    """Have a summary of the newest part, as the studio's background has in a conversation that grew."""
    past = Followed(Conversations(database).past(where), Message("user", QUESTION))
    upto = left_out_before(Request("", past, budget, count))
    if upto and summaries.latest(past, before=upto) is None:
        from memory.strategies.summary import Summary

        said = past.stretch(max(0, upto - 24), upto)
        text = pick_sentences("", [one.message for one in said], words_for(budget))
        summaries.keep(Summary(said[-1].id, said[-1].depth, text))
    advance(summaries, past, upto=upto, summarise=pick_sentences, most_words=words_for(budget), most_steps=2)


def search_table(database: Database, *, repeats: int) -> list[dict[str, Any]]:
    """Median and 99th percentile of a person's search, by kind of query."""
    search = Search(database)
    rows = []
    for kind, query in QUERIES.items():
        found = search.find(OWNER, query)
        rows.append(
            {"query": kind, "found": len(found), **timed(partial(search.find, OWNER, query), repeats)}
        )
    return rows


def timed(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds of `call`, after five calls that do not count: median and 99th percentile by the clock, and the
    median of processor time, which a busy machine falsifies less."""
    for _ in range(5):
        call()
    taken, computed = [], []
    for _ in range(repeats):
        begun, working = time.perf_counter(), time.process_time()
        call()
        taken.append((time.perf_counter() - begun) * 1000)
        computed.append((time.process_time() - working) * 1000)
    taken.sort()
    p99 = taken[min(len(taken) - 1, int(len(taken) * 0.99))]
    return {
        "median": round(statistics.median(taken), 2),
        "p99": round(p99, 2),
        "cpu": round(statistics.median(computed), 2),
    }


if __name__ == "__main__":
    main()
