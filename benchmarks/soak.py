"""Does the studio stay as it is under hours of use? Many people at once, and then: is all as before?

    python -m benchmarks.soak [--seconds 120] [--seed 1] [--model FOLDER] [--people 12] [--every 5]

A real studio (database, ledger, registry, local policy; no page) is used by seeded people: they open conversations,
send, retry, stop replies in the middle, vote on pairs or skip them, leave without waiting; now and then somebody sends
what must be refused. Every few seconds an adapter is promoted: usually a new one, sometimes an earlier one, sometimes a
damaged one that must not be served. Prints memory, what of it the
replies' keys and values hold, threads and file handles as time goes by, and one JSON line; exits 1 when something
was lost. Reads /proc, so it runs on Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.soak_people import Result, Sample, Soak, sample
from studio.build import build
from studio.settings import StudioSettings
from training.base import load_base

_WIDTHS = (9, 11, 12, 8, 8, 8, 9)


def soak(
    settings: StudioSettings,
    seconds: float,
    *,
    seed: int,
    people: int = 12,
    every: float = 5.0,
    show: Callable[[Sample], None] = lambda _: None,
) -> Result:
    """Build a studio, use it for `seconds`, close it; `before` and `after` frame its life."""
    base = load_base(settings)
    gc.collect()
    before = sample(0.0)
    with tempfile.TemporaryDirectory(prefix="thumbprint-soak-") as folder, build(settings) as studio:
        result = Soak(studio, base, Path(folder), seed=seed, people=people).run(
            seconds, every=every, show=show
        )
    del studio
    gc.collect()
    result.before, result.after = before, sample(seconds)
    return result


def main() -> int:
    """Soak, print, and say with the exit status whether anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long")
    parser.add_argument("--seed", type=int, default=1, help="what people do")
    parser.add_argument("--people", type=int, default=12, help="how many use the studio at once")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two lines")
    parser.add_argument("--model", default="", help="folder of a model; empty: the one that ships")
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # refused adapters are part of it, and each is an error in the log
    print("  seconds  memory MiB  of it cache  threads  handles  replies  adapters")

    def show(one: Sample) -> None:
        columns = (one.at, one.resident, one.cache, one.threads, one.handles, one.begun, one.adapters)
        print(
            " ".join(f"{value:{width}.0f}" for value, width in zip(columns, _WIDTHS, strict=True)), flush=True
        )

    with tempfile.TemporaryDirectory(prefix="thumbprint-soak-data-") as folder:
        chosen = {"model": options.model} if options.model else {}
        settings = StudioSettings(data_dir=Path(folder), compare_every=2, compare_with_previous=0.5, **chosen)
        result = soak(
            settings,
            options.seconds,
            seed=options.seed,
            people=options.people,
            every=options.every,
            show=show,
        )
    assert result.before is not None and result.after is not None
    print(
        f"\n{result.begun} replies begun, {result.lost} lost. Ends: {result.finishes}. Acts: {result.acts}."
    )
    print(
        f"Threads {result.before.threads} before, {result.after.threads} after; handles {result.before.handles} "
        f"before, {result.after.handles} after; memory in the second half {result.growth():+.0f} MiB."
    )
    print(json.dumps({"benchmark": "soak", **vars(options), **describe(), **asdict(result)}))
    return 1 if result.lost else 0


if __name__ == "__main__":
    sys.exit(main())
