"""Which settings stand up on little feedback: simulated raters x judgements x seeds x settings, each retrained and
measured on held-out prompts.

python -m benchmarks.small_data --raters question,short,polite --comparisons 25,100,400 --seeds 1,2
[--try "--epochs 2" --try "--beta 0.2 --sft-weight 2"] [--file study.jsonl] [--json] [SETTINGS]

A cell is one rater, one number of comparisons (ties included), one seed and one set of settings: the iteration that a
studio runs (`training.iteration.iterate`, gate included) on that rater's votes, in this process and without a chat.
With ``--method kto`` both replies get a thumb instead, with ``--method sft`` one of them is liked or rewritten. The
defaults are always among the settings; every `--try` adds one, and any other flag holds for all of them. All raters and
all settings of a seed see the same pairs. Each finished cell is a line in `--file`; cells that are there already are
not run again, so the command can be stopped at any time. The pairs are kept in a folder beside it.

*Gain* is (after - before) / (1 - before) of the share of held-out replies that satisfy the rater, for what is served
afterwards: nothing where the gate refused. *Trained* is the same for the candidate, whatever the gate said. *Facts* is
the candidate's change in the share of held-out questions answered with a true fact. It needs the mini model's grammar
for prompts and facts.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

from benchmarks.cells import (
    Cell,
    Measured,
    all_cells,
    append_cell,
    comparison_table,
    read_cells,
    summary,
    table,
)
from benchmarks.loop import fact_share, normalised_gain, satisfied_share
from benchmarks.machine import describe
from benchmarks.rated import answer, corrected, judged, talk, thumbed
from benchmarks.raters import RATERS, find_rater
from memory.database import open_database
from memory.runs import Runs
from memory.schema import BASE_VERSION
from memory.settings import load_settings
from training.base import load_base
from training.iteration import Outcome, iterate
from training.journal import Journal
from training.method import CANDIDATE, TrainingDiverged
from training.metrics import MetricsWriter
from training.mini.heldout import HeldOut, heldout_prompts
from training.registry import Registry
from training.settings import TrainingSettings
from training.views import Feedback

_SHARED = ("model", "revision", "quantization", "chat_template", "context_tokens")
"""Settings of the base, which is loaded once for all cells."""
_SAID = {"kto": thumbed, "sft": corrected}
"""What people do for a method; for all others they compare."""


class Study:
    """The base, the pairs and the held-out replies that all cells share. `flags` hold for all of them; `folder` keeps
    the pairs.
    """

    def __init__(self, flags: Sequence[str], *, prompts: int, folder: Path) -> None:
        self._flags, self._prompts, self._folder = tuple(flags), prompts, folder
        self._settings = load_settings(TrainingSettings, flags)
        self._base = load_base(self._settings)
        self._plain: dict[int, list[str]] = {}
        self.common = common_flags(flags, prompts=prompts)

    def measure(self, cell: Cell) -> Measured:
        """Retrain on the cell's votes, and ask the result what it was never asked."""
        settings = cell_settings(cell, self._flags)
        rater, asked = find_rater(cell.rater), heldout_prompts(self._prompts, cell.seed)
        pairs = talk(
            self._base, pairs=cell.comparisons, seed=cell.seed, settings=self._settings, folder=self._folder
        )
        feedback = _SAID.get(settings.method, judged)(pairs, rater)
        plain = self._plain_replies(cell.seed, asked)
        before, facts = satisfied_share(rater, asked, plain), fact_share(asked, plain)
        with tempfile.TemporaryDirectory(prefix="thumbprint-study-") as folder:
            began = time.monotonic()
            outcome, made = retrain(feedback, settings, Path(folder))
            seconds = time.monotonic() - began
            report = _read_report(made)
            replies = self._candidate_replies(made / "candidate", cell.seed, asked) if report else None
        after = None if replies is None else satisfied_share(rater, asked, replies)
        trained = None if after is None else _known(normalised_gain(before, after))
        evaluation, machine = report.get("evaluation", {}), describe()
        return Measured(
            **asdict(cell),
            state=outcome.state,
            verdict=outcome.message,
            failed_checks=[check["name"] for check in _checks(report) if not check["passed"]],
            ties=sum(labeled.label == "tie" for labeled in feedback.comparisons),
            training_pairs=evaluation.get("training_pairs"),
            judged_pairs=evaluation.get("judged_pairs"),
            before=before,
            after=after,
            trained=trained,
            gain=trained if outcome.state == "published" else _known(normalised_gain(before, before)),
            facts_base=facts,
            facts_change=None if replies is None else fact_share(asked, replies) - facts,
            kl=evaluation.get("kl_base"),
            scale=evaluation.get("scale"),
            win_rate=evaluation.get("win_rate_served"),
            forgotten=evaluation.get("forgotten"),
            seconds=round(seconds, 1),
            phase_seconds=report.get("seconds", {}),
            commit=machine["commit"],
            load=machine["load"][0] if "load" in machine else None,
            samples=(replies or [])[:4],
            common=self.common,
        )

    def _plain_replies(self, seed: int, asked: Sequence[HeldOut]) -> list[str]:
        if seed not in self._plain:
            self._plain[seed] = self._replies(self._base.model, asked, adapter=None, seed=seed)
        return self._plain[seed]

    def _candidate_replies(self, adapter: Path, seed: int, asked: Sequence[HeldOut]) -> list[str]:
        from peft import PeftModel

        model: Any = PeftModel.from_pretrained(self._base.model, str(adapter), CANDIDATE)
        replies = self._replies(model, asked, adapter=CANDIDATE, seed=seed)
        model.unload()
        return replies

    def _replies(self, model: Any, asked: Sequence[HeldOut], *, adapter: str | None, seed: int) -> list[str]:
        prompts = [heldout.prompt_messages for heldout in asked]
        replies = answer(self._base, model, prompts, adapter=adapter, seed=seed, settings=self._settings)
        return [reply.text for reply in replies]


def cell_settings(cell: Cell, flags: Sequence[str]) -> TrainingSettings:
    """The settings under which the cell is retrained. Raises `ValueError` where they would need another base."""
    common = load_settings(TrainingSettings, flags)
    settings = load_settings(TrainingSettings, [*flags, *shlex.split(cell.tried), "--seed", str(cell.seed)])
    for name in _SHARED:
        if getattr(settings, name) != getattr(common, name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"--try {cell.tried!r} changes {name}, but all cells share one base. Give {flag} outside of --try, "
                "with a --file of its own."
            )
    return settings


def common_flags(flags: Sequence[str], *, prompts: int) -> str:
    """What holds for all cells of a study, as one would type it."""
    return shlex.join(["--prompts", str(prompts), *flags])


def retrain(feedback: Feedback, settings: TrainingSettings, folder: Path) -> tuple[Outcome, Path]:
    """One iteration on `feedback` in the empty `folder`: how it ended, and the run's folder."""
    database = open_database(f"sqlite:///{folder / 'study.db'}")
    try:
        runs = Runs(database)
        run = runs.queue(settings.method, BASE_VERSION, folder / "runs", "benchmark")
        with MetricsWriter(Path(run.folder) / "metrics.jsonl", clock=time.time) as metrics:
            journal = Journal(runs, run.id, metrics=metrics, clock=time.time, stop=Event())
            try:
                outcome = iterate(
                    run,
                    settings=settings,
                    feedback=lambda: feedback,
                    runs=runs,
                    registry=Registry(folder / "adapters"),
                    journal=journal,
                    clock=time.time,
                )
            except TrainingDiverged as error:  # a finding about the settings, not a fault of the study
                outcome = Outcome("failed", str(error))
        return outcome, Path(run.folder)
    finally:
        database.close()


def main(flags: Sequence[str] | None = None) -> int:
    """Run the cells that are not done yet; 0 whatever they measured, 2 for flags that do not work."""
    options, others = _parser().parse_known_args(flags)
    raters, tried = options.raters.split(","), ["", *options.tried]
    try:
        asked = list(all_cells(tried, raters, _numbers(options.comparisons), _numbers(options.seeds)))
        for cell in asked:
            find_rater(cell.rater)
            cell_settings(cell, others)
        file = Path(options.file)
        done = read_cells(file, common=common_flags(others, prompts=options.prompts))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    left = [cell for cell in asked if cell not in done]
    if left:
        study = Study(others, prompts=options.prompts, folder=file.with_suffix(""))
        for number, cell in enumerate(left, start=1):
            done[cell] = study.measure(cell)
            append_cell(file, done[cell])
            print(f"{number} of {len(left)}: {_line(done[cell])}", file=sys.stderr, flush=True)
    measured = [done[cell] for cell in asked]
    print("\n\n".join(filter(None, (table(measured), comparison_table(measured)))))
    if options.json:
        print(json.dumps({"study": summary(measured), "machine": describe()}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.small_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--raters",
        default="question,no_exclamation,lists,short,polite,noisy_question",
        help=f"with commas between them: {', '.join(RATERS)}, or FILE.py:FUNCTION",
    )
    parser.add_argument(
        "--comparisons", default="25,50,100,200,400,1000", help="votes, with commas between numbers"
    )
    parser.add_argument("--seeds", default="1,2", help="with commas between them")
    parser.add_argument(
        "--try",
        dest="tried",
        action="append",
        default=[],
        metavar="FLAGS",
        help="settings to try beside the defaults, in quotes; may be given several times",
    )
    parser.add_argument("--prompts", type=int, default=200, help="held-out questions before and after")
    parser.add_argument(
        "--file", default="small_data.jsonl", help="finished cells, one a line (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser


def _numbers(text: str) -> list[int]:
    """Whole numbers with commas between them. Raises `ValueError` that says what was expected."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"Got {text!r}; expected whole numbers with commas between them, such as 25,100."
        ) from None
    if min(numbers) < 1:
        raise ValueError(f"Got {text!r}; expected numbers of 1 or more.")
    return numbers


def _line(found: Measured) -> str:
    trained, facts = (_signed(value) for value in (found.trained, found.facts_change))
    return (
        f"[{found.tried or 'defaults'}] {found.rater} {found.comparisons} seed {found.seed}: gain {trained}, "
        f"facts {facts}, {found.state} {' '.join(found.failed_checks)} in {found.seconds:.0f} s"
    )


def _read_report(folder: Path) -> dict[str, Any]:
    """What the iteration wrote; empty where it ended before the gate."""
    file = folder / "report.json"
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return report


def _checks(report: dict[str, Any]) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = report.get("verdict", {}).get("checks", [])
    return checks


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


if __name__ == "__main__":
    sys.exit(main())
