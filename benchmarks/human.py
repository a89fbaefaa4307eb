"""The reward model on real human judgements, beside word n-grams with a linear model fitted on the same pairs.

    python -m benchmarks.human --data FOLDER [--set accentor --set hh-first --set hh-second] [--seeds 2] [--thumbs]
        [--messages 1] [--validate] [--json] [SETTINGS]

For each set (`benchmarks.human_data`) and seed a reward model is fitted on the training part and examined on the test
part, none of whose dialogues or prompts it saw. `--thumbs` adds the set's thumbs to the training part, for the baseline
too. `--messages` is how many of a prompt's last messages are read. `--validate` divides the training part again and
never looks at the test part: settings are chosen there. Any other flag is a setting of training. The base is the
settings' (`--model`); `python -m benchmarks.human_base` makes one from the texts of the training parts.

Accuracies are shares of test pairs whose preferred reply has the higher reward, with Wilson's 95 % interval; *over
baseline* is the difference on the same pairs with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.human_data import SETS, HumanSet, UnreadableData, read_set
from benchmarks.machine import describe
from benchmarks.ngram_baseline import baseline_leads, pairs_of
from memory.settings import load_settings
from training.judge import wilson
from training.orderings import Ordering
from training.reward_validation import RewardReport
from training.settings import TrainingSettings

if TYPE_CHECKING:
    from training.base import BaseModel
    from training.reward_fitting import EncodedOrdering
    from training.reward_model import RewardModel


@dataclass(frozen=True)
class Outcome:
    """One reward model on one set. `gain` is its accuracy less the baseline's, on the same pairs."""

    set: str
    seed: int
    train: int
    thumbs: int
    test: int
    baseline: float
    accuracy: float
    low: float
    high: float
    gain: float
    gain_error: float
    report: RewardReport
    seconds: float


def run(found: HumanSet, *, settings: TrainingSettings, thumbs: bool, messages: int) -> Outcome:
    """Fit on the training part, examine on the test part; orderings that do not fit the context are in neither."""
    from training.base import load_base
    from training.reward_examination import examine
    from training.reward_fitting import fit

    began = time.monotonic()
    base = load_base(settings)
    train, lessons = _fitting(base, found.train, settings=settings, messages=messages)
    liked, more = _fitting(base, found.thumbs if thumbs else (), settings=settings, messages=messages)
    test, aside = _fitting(base, found.test, settings=settings, messages=messages)
    reward_model = fit(base, [*lessons, *more], settings=settings)
    leads = _leads(reward_model, aside)
    report = examine(reward_model, aside, known=lessons)
    seconds = time.monotonic() - began
    base_leads = baseline_leads([*train, *liked], test)
    right, theirs = [_right(lead) for lead in leads], [_right(lead) for lead in base_leads]
    low, high = wilson(round(sum(right)), len(right))
    gains = [ours - their for ours, their in zip(right, theirs, strict=True)]
    return Outcome(
        set=found.name,
        seed=settings.seed,
        train=len(pairs_of(train)),
        thumbs=len(liked),
        test=len(leads),
        baseline=fmean(theirs),
        accuracy=fmean(right),
        low=low,
        high=high,
        gain=fmean(gains),
        gain_error=math.sqrt(fmean([(gain - fmean(gains)) ** 2 for gain in gains]) / len(gains)),
        report=report,
        seconds=seconds,
    )


def _leads(reward_model: RewardModel, orderings: Sequence[EncodedOrdering]) -> list[float]:
    """By how much the preferred reply has the higher reward, in every pair."""
    prompts = [item.prompt for item in orderings for _ in item.replies]
    rewards = iter(reward_model.score(prompts, [reply for item in orderings for reply in item.replies]))
    groups = [[next(rewards) for _ in item.replies] for item in orderings]
    return [better - worse for group in groups for better, worse in combinations(group, 2)]


def _fitting(
    base: BaseModel, orderings: Sequence[Ordering], *, settings: TrainingSettings, messages: int
) -> tuple[list[Ordering], list[EncodedOrdering]]:
    """The orderings that fit the context with the last messages of their prompts, and their ids."""
    from training.reward_fitting import encode_orderings

    shortened = [replace(item, prompt=item.prompt[-messages:]) for item in orderings]
    found = [
        (item, encoded) for item in shortened for encoded in encode_orderings(base, [item], settings=settings)
    ]
    return [item for item, _ in found], [encoded for _, encoded in found]


def _right(lead: float) -> float:
    return 1.0 if lead > 0 else 0.5 if lead == 0 else 0.0


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown."""
    lines = [
        "| set | seed | trained on | tested on | n-grams | reward model | 95 % | over baseline | length-controlled "
        "| strange prompts | Spearman | Kendall | ECE | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in outcomes:
        report = found.report
        trained = f"{found.train} pairs" + (f" + {found.thumbs} thumbs" if found.thumbs else "")
        lines.append(
            f"| {found.set} | {found.seed} | {trained} | {found.test} | {found.baseline:.1%} | {found.accuracy:.1%} "
            f"| {found.low:.1%} to {found.high:.1%} | {found.gain:+.1%} ± {1.96 * found.gain_error:.1%} "
            f"| {_share(report.length_controlled_accuracy)} | {_share(report.strange_accuracy)} "
            f"| {_number(report.spearman)} | {_number(report.kendall)} | {_share(report.calibration_error)} "
            f"| {found.seconds:.0f} |"
        )
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    import torch

    chosen, flags = _parser().parse_known_args(arguments)
    torch.set_num_threads(chosen.threads)
    outcomes: list[Outcome] = []
    for name in chosen.set or SETS:
        try:
            found = read_set(chosen.data, name)
        except UnreadableData as error:
            print(error, file=sys.stderr)
            return 1
        for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
            settings = load_settings(TrainingSettings, [*flags, "--seed", str(seed)])
            outcomes.append(
                run(
                    found.validating() if chosen.validate else found,
                    settings=settings,
                    thumbs=chosen.thumbs,
                    messages=chosen.messages,
                )
            )
            print(table(outcomes[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(json.dumps(_record(outcomes, flags)) if chosen.json else table(outcomes))
    return 0


def _record(outcomes: Sequence[Outcome], flags: Sequence[str]) -> dict[str, Any]:
    return {"machine": describe(), "flags": list(flags), "outcomes": [asdict(found) for found in outcomes]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.human", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets' files")
    parser.add_argument("--set", action="append", choices=SETS, help="which set; may be repeated (all)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--thumbs", action="store_true", help="train on the set's thumbs too")
    parser.add_argument("--messages", type=int, default=1, help="last messages of a prompt to read")
    parser.add_argument("--validate", action="store_true", help="test on a part of the training part")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--json", action="store_true", help="print a JSON line instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
