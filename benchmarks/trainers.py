"""Our DPO, KTO and reward model beside plain TRL's on the same rows: what they take, and whether they compute the same.

    python -m benchmarks.trainers [--methods dpo,kto,reward] [--rounds 3] [--pairs 120]

Pairs are a simulated rater's votes on the base's replies. Every training runs in a process of its own, in turns within
a round: ours, TRL's trainer as its documentation sets it up (``plain``), and TRL's trainer on our weights, precision,
order of rows and first matrices (``same``; not for KTO), whose loss curve must be ours. `benchmarks.trainers_ways` says
what each gets. Prints a table (medians, least and most) and one JSON line. It trains nothing itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, describe
from benchmarks.measuring import Taken
from benchmarks.trainers_ways import Answer, Job
from training.settings import TrainingSettings

WAYS = {"dpo": ("ours", "plain", "same"), "kto": ("ours", "plain"), "reward": ("ours", "plain", "same")}


@dataclass(frozen=True)
class Run:
    """A method, the way it was trained, and what came of it."""

    method: str
    way: str
    seed: int
    answer: Answer


def main() -> int:
    """Measure, print, exit."""
    options = _parser().parse_args()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="thumbprint-trainers-") as name:
        work = options.keep or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        for seed in range(options.seed, options.seed + options.rounds):
            job = _job(options, seed, work)
            for method in options.methods.split(","):
                for way in WAYS[method]:
                    folder = work / f"{method}-{way}-{seed}"
                    runs.append(Run(method, way, seed, _run(method, way, job, folder)))
                    print(_line(runs[-1:]), file=sys.stderr)
    print(table(runs))
    print(json.dumps({"benchmark": "trainers", **describe(), "runs": [asdict(run) for run in runs]}))
    return 0


def _job(options: argparse.Namespace, seed: int, work: Path) -> Job:
    """So many decided pairs of one rater, as ids and as text."""
    import torch

    from benchmarks.rated import judged, talk
    from benchmarks.raters import find_rater
    from memory.views import preference_rows
    from training.base import load_base
    from training.pairs import encode_pairs

    torch.set_num_threads(options.threads)
    changed = {"seed": seed, "quantization": options.quantization}
    settings = TrainingSettings(**changed)
    base = load_base(settings)
    drawn = talk(base, pairs=3 * options.pairs, seed=options.seed, settings=settings, folder=work)
    rows, _ = preference_rows(judged(drawn, find_rater(options.rater)))
    kept, pairs = encode_pairs(base.tokenizer, rows, context_tokens=base.context_tokens)
    return Job(
        pairs=[
            [list(pair.prompt), list(pair.chosen), list(pair.rejected)] for pair in pairs[: options.pairs]
        ],
        rows=[row.to_trl() for row in kept[: options.pairs]],
        settings=changed,
        threads=options.threads,
    )


def _run(method: str, way: str, job: Job, folder: Path) -> Answer:
    """One training in a fresh process."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "job.json"
    file.write_text(json.dumps(asdict(job)), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": str(job.threads), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "benchmarks.trainers_ways", method, way, str(file), str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    content = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return Answer(Taken(**content["taken"]), content["losses"])


def table(runs: Sequence[Run]) -> str:
    """Every method and way as a row of Markdown, medians over the rounds with least and most."""
    columns = [
        "method",
        "way",
        "seconds",
        "CPU s",
        "peak MB",
        "growth MB",
        "last losses",
        "largest difference",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for method, way in dict.fromkeys((run.method, run.way) for run in runs):
        some = [run for run in runs if (run.method, run.way) == (method, way)]
        apart = [distance(run.answer, _ours(runs, run)) for run in some] if way == "same" else []
        lines.append(_line(some) + (f" {max(apart):.1e} |" if apart else " |"))
    return "\n".join(lines)


def distance(one: Answer, other: Answer) -> float:
    """The largest difference between two loss curves, in the loss's own units."""
    return max(abs(a - b) for a, b in zip(one.losses, other.losses, strict=True))


def _ours(runs: Sequence[Run], like: Run) -> Answer:
    """Our run of the same method and seed."""
    return next(r.answer for r in runs if (r.method, r.way, r.seed) == (like.method, "ours", like.seed))


def _line(runs: Sequence[Run]) -> str:
    def shown(value: Callable[[Answer], float], digits: int) -> str:
        values = [value(run.answer) for run in runs]
        middle = f"{statistics.median(values):.{digits}f}"
        return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else middle

    figures = [
        shown(lambda answer: answer.taken.seconds, 1),
        shown(lambda answer: answer.taken.cpu, 1),
        shown(lambda answer: answer.taken.peak_mb, 0),
        shown(lambda answer: answer.taken.growth_mb, 0),
        shown(lambda answer: statistics.fmean(answer.losses[-10:]), 3),
    ]
    return f"| {runs[0].method} | {runs[0].way} | {' | '.join(figures)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trainers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Any = parser.add_argument
    add("--methods", default="dpo,kto,reward", help="which, with commas")
    add("--rounds", type=int, default=3, help="rounds, each with a seed of its own")
    add("--seed", type=int, default=1, help="first seed")
    add("--pairs", type=int, default=120, help="decided pairs to train on")
    add("--rater", default="short", help="whose votes")
    add("--quantization", choices=("nf4", "int8", "none"), default="nf4")
    add("--threads", type=int, default=1, help="CPU threads of every way")
    add("--keep", type=Path, help="folder for rows and answers, which is left in place")
    return parser


if __name__ == "__main__":
    sys.exit(main())
