"""The whole loop, measured: chat, blind pairs, votes, retraining, gate, swap, and whether the replies got
better.

python -m benchmarks.loop --rater question --comparisons 100 --seed 1 [--method dpo] [--seeds 3] [--json]
[--careless] [SETTINGS]

A simulated rater chats with a studio that is built as ``app.py`` builds it (without its page), judges a blind
pair at every turn, presses Retrain, and waits for the swap; the trainer is a process of its own.
`--comparisons` counts votes, ties included. With `--signal thumbs`, which goes with `--method kto`, single replies
get a thumb instead, two for every comparison asked for; with `--signal corrections`, which goes with
`--method sft`, one reply for every comparison is liked or, where it is not, corrected. The rater is a built-in name
or ``FILE.py:FUNCTION``. Before and after, the same held-out questions are answered through the chat's policy: the
share that satisfies the rater, and the normalised gain (after - before) / (1 - before). Any other flag is a setting
of the studio, as for ``app.py``. `--careless` trains as one should not (learning rate 1e-3, no term for fluency, no
restraint), to see what the gate says. Each seed has its own data folder, which is removed (`--keep` leaves it).

It uses public parts only and needs the mini model's grammar for prompts and facts.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.raters import RATERS, Rater, find_rater
from benchmarks.simulation import (
    PERSON,
    WAIT_SECONDS,
    answer,
    collect,
    collect_corrections,
    collect_thumbs,
    first_words,
)
from memory.schema import BASE_VERSION, FINAL_STATES, Run
from memory.settings import load_settings
from studio.build import Studio, build
from studio.retraining import RetrainingRefused
from studio.settings import StudioSettings
from training.mini.heldout import HeldOut, heldout_prompts, states_true_fact

CARELESS = ("--learning-rate", "1e-3", "--sft-weight", "0", "--no-restrain")
ALWAYS = ("--compare-with-previous", "0")
PAIRS, SINGLES = ("--compare-every", "1"), ("--compare-every", "0")
SIGNALS = ("comparisons", "thumbs", "corrections")
BEST_SIGNAL = {"kto": "thumbs", "sft": "corrections"}
"""What people do for a method; for all others they compare."""


@dataclass(frozen=True)
class Round:
    """One seed's measurements. Shares are of held-out replies; times in seconds; kl in nats a reply."""

    rater: str
    method: str
    signal: str
    seed: int
    comparisons: int
    ties: int
    training_pairs: int | None
    heldout_pairs: int | None
    before: float
    after: float
    gain: float
    facts_base: float
    facts_after: float
    kl: float | None
    fluency_drop: float | None
    preference_accuracy: float | None
    judge_accuracy: float | None
    win_rate: float | None
    promoted: bool
    verdict: str
    served: str
    collect_seconds: float
    retrain_seconds: float
    phase_seconds: dict[str, float]
    samples: list[dict[str, str]]


def run_round(
    rater: Rater,
    *,
    comparisons: int,
    signal: str = SIGNALS[0],
    seed: int,
    prompts: int,
    settings: StudioSettings,
) -> Round:
    """Drive one loop in the data folder of `settings`, which must be empty."""
    asked = heldout_prompts(prompts, seed)
    with build(settings, rng=random.Random(seed)) as studio:
        before = answer(studio, asked, version=BASE_VERSION, seed=seed)
        began = time.monotonic()
        ties = 0
        if signal == "thumbs":
            collect_thumbs(studio, rater, thumbs=2 * comparisons, seed=seed)
        elif signal == "corrections":
            collect_corrections(studio, rater, replies=comparisons, seed=seed)
        else:
            ties = collect(studio, rater, comparisons=comparisons, seed=seed)
        collected = time.monotonic()
        run, said = retrain(studio)
        replied = first_words(studio)
        after = answer(studio, asked, version=studio.serving.current.version, seed=seed)
        report = (studio.retraining.report(run.id) or {}) if run else {}
        evaluation = report.get("evaluation", {})
        return Round(
            rater=rater.name,
            method=settings.method,
            signal=signal,
            seed=seed,
            comparisons=comparisons,
            ties=ties,
            training_pairs=evaluation.get("training_pairs"),
            heldout_pairs=evaluation.get("heldout_pairs"),
            before=(was := satisfied_share(rater, asked, before)),
            after=(now := satisfied_share(rater, asked, after)),
            gain=normalised_gain(was, now),
            facts_base=fact_share(asked, before),
            facts_after=fact_share(asked, after),
            kl=evaluation.get("kl_base"),
            fluency_drop=evaluation.get("fluency_drop"),
            preference_accuracy=evaluation.get("preference_accuracy"),
            judge_accuracy=evaluation.get("judge_accuracy"),
            win_rate=evaluation.get("win_rate_served"),
            promoted=run is not None and run.state == "published",
            verdict=said,
            served=studio.serving.current.version,
            collect_seconds=round(collected - began, 1),
            retrain_seconds=round(replied - collected, 1),
            phase_seconds=report.get("seconds", {}),
            samples=evaluation.get("samples", []),
        )


def retrain(studio: Studio) -> tuple[Run | None, str]:
    """Press Retrain and wait until what it made is served: the run (None: it may not begin yet), and what was said."""
    try:
        run = studio.retraining.start(PERSON)
    except RetrainingRefused as refusal:
        return None, str(refusal)
    began = time.monotonic()
    while run.state not in FINAL_STATES and time.monotonic() - began < WAIT_SECONDS:
        time.sleep(0.1)
        run = studio.runs.get(run.id)
    if run.version:
        studio.serving.wait_for(run.version, timeout=60)
    return run, run.message


def satisfied_share(rater: Rater, asked: Sequence[HeldOut], replies: Sequence[str]) -> float:
    """Share of replies that are good enough for the rater."""
    pairs = zip(asked, replies, strict=True)
    return fmean(rater.satisfied(prompt.prompt_messages[-1].content, reply) for prompt, reply in pairs)


def fact_share(asked: Sequence[HeldOut], replies: Sequence[str]) -> float:
    """Share of replies that state a true fact of the topic asked about."""
    return fmean(
        states_true_fact(prompt.topic_name, reply) for prompt, reply in zip(asked, replies, strict=True)
    )


def normalised_gain(before: float, after: float) -> float:
    """(after - before) / (1 - before): 0 is no change, 1 is everything. Not a number when nothing was to be
    gained.
    """
    return (after - before) / (1 - before) if before < 1 else math.nan


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds and its standard error (not a number for one seed)."""
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """What the rounds say together, JSON-ready."""
    gain, error = mean_and_error([item.gain for item in rounds])
    facts, facts_error = mean_and_error([item.facts_after - item.facts_base for item in rounds])
    whole = {
        "rater": rounds[0].rater,
        "method": rounds[0].method,
        "signal": rounds[0].signal,
        "comparisons": rounds[0].comparisons,
        "seeds": [item.seed for item in rounds],
        "before": fmean(item.before for item in rounds),
        "after": fmean(item.after for item in rounds),
        "gain": gain,
        "gain_error": error,
        "facts_base": fmean(item.facts_base for item in rounds),
        "facts_change": facts,
        "facts_change_error": facts_error,
        "promoted": sum(item.promoted for item in rounds),
        "retrain_seconds": fmean(item.retrain_seconds for item in rounds),
        "rounds": [asdict(item) for item in rounds],
    }
    text = json.dumps(whole)
    plain: dict[str, Any] = json.loads(text, parse_constant=lambda constant: None)
    return plain


def table(rounds: Sequence[Round]) -> str:
    """The rounds as lines for a person."""
    head = (
        f"{'seed':>4} {'ties':>4} {'pairs':>5} {'before':>6} {'after':>6} {'gain':>6} {'facts':>13} {'KL':>6}"
    )
    lines = [f"{head} {'fluency':>7} {'seconds':>7}  verdict"]
    for item in rounds:
        facts = f"{item.facts_base:.3f} {item.facts_after - item.facts_base:+.3f}"
        lines.append(
            f"{item.seed:>4} {item.ties:>4} {item.training_pairs or 0:>5} {item.before:>6.2f} {item.after:>6.2f} "
            f"{item.gain:>6.2f} {facts:>13} {_number(item.kl):>6} {_number(item.fluency_drop):>7} "
            f"{item.retrain_seconds:>7.1f}  {item.verdict}"
        )
    gain, error = mean_and_error([item.gain for item in rounds])
    return "\n".join([*lines, f"normalised gain {gain:.3f} (standard error {error:.3f})"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 whatever it measured, 2 for wrong flags."""
    options, others = _parser().parse_known_args(arguments)
    try:
        rater = find_rater(options.rater)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    rounds: list[Round] = []
    careless = CARELESS if options.careless else ()
    for seed in range(options.seed, options.seed + options.seeds):
        with _data_folder(keep=options.keep) as folder:
            flags = [*ALWAYS, "--seed", str(seed), *careless, *others, "--data-dir", str(folder)]
            method = load_settings(StudioSettings, flags).method
            signal = options.signal or BEST_SIGNAL.get(method, SIGNALS[0])
            pairs = PAIRS if signal == "comparisons" else SINGLES
            found = run_round(
                rater,
                comparisons=options.comparisons,
                signal=signal,
                seed=seed,
                prompts=options.prompts,
                settings=load_settings(StudioSettings, [*pairs, *flags]),
            )
        rounds.append(found)
        print(table(rounds[-1:]).splitlines()[1], file=sys.stderr)
    print(table(rounds))
    if options.show:
        print(json.dumps(rounds[-1].samples, indent=2, ensure_ascii=False))
    if options.json:
        print(json.dumps(summary(rounds)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rater", default="question", help=f"{', '.join(RATERS)}, or FILE.py:FUNCTION")
    parser.add_argument("--comparisons", type=int, default=100, help="votes to cast, ties included")
    parser.add_argument("--signal", choices=SIGNALS, help="what the rater does (default: what fits --method)")
    parser.add_argument("--seed", type=int, default=1, help="first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to run, one after the other")
    parser.add_argument("--prompts", type=int, default=200, help="held-out questions before and after")
    parser.add_argument("--careless", action="store_true", help="train without care, to see the gate say no")
    parser.add_argument("--show", action="store_true", help="print sample replies side by side")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--keep", action="store_true", help="leave the data folders in place")
    return parser


@contextmanager
def _data_folder(*, keep: bool) -> Iterator[Path]:
    if keep:
        folder = Path(tempfile.mkdtemp(prefix="thumbprint-loop-"))
        print(f"Data folder: {folder}", file=sys.stderr)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="thumbprint-loop-") as name:
        yield Path(name)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
