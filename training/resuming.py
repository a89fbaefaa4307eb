"""What a run began with, kept in its folder, so that a run that was killed can be gone on with as if it had not been.

The same result needs the same settings and the same feedback. The settings are kept; of the feedback only the time and
a hash, because people's words stay where they can be erased. So a run that was interrupted is resumed on what was known
when it began, and refused where that has been changed or erased since. This module reads no flags and trains nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from memory.runs import Runs
from memory.schema import Run
from training.checkpoints import hand_over_checkpoints
from training.views import Feedback

_FILE = "began.json"
_INTERRUPTED = ("failed", "cancelled")
_LOOKED_THROUGH = 200


class CannotResume(ValueError):
    """There is nothing to go on with, or it would not be the same run any more; with the reason and the way out."""


@dataclass(frozen=True)
class Beginning:
    """What a run began with: its `settings` as JSON values, the Unix time up to which judgements count, the feedback's
    digest, and the version that was served. `resumed` is the folder of the run that it goes on with, if any.
    """

    settings: Mapping[str, Any]
    until: float
    feedback: str
    served: str
    resumed: str = ""

    def write(self, folder: Path) -> None:
        """Keep it in the run's `folder`, whole or not at all."""
        unfinished = folder / f"{_FILE}.part"
        unfinished.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / _FILE)


def beginning_of(folder: Path) -> Beginning | None:
    """What the run in `folder` began with; None for one that did not keep it."""
    path = folder / _FILE
    return Beginning(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def forget_beginning(folder: Path) -> None:
    """What was begun in `folder` has come to its end."""
    (folder / _FILE).unlink(missing_ok=True)


def interrupted_run(runs: Runs, method: str, run_id: str = "") -> tuple[Run, Beginning]:
    """The run to go on with: the last one of `method`, or the one named `run_id`. Raises `CannotResume`, `UnknownRun`.

    Only runs that were started with checkpoints in mind can be resumed, and only if they did not come to an end of
    their own.
    """
    runs.active()  # a trainer that was killed is noticed here
    if run_id:
        run = runs.get(run_id)
    else:
        earlier = (run for run in runs.list(_LOOKED_THROUGH) if run.method == method)
        found = next(earlier, None)
        if found is None:
            raise CannotResume(f"There is no run of {method} to resume. Start one without --resume.")
        run = found
    beginning = beginning_of(Path(run.folder))
    if run.method != method:
        raise CannotResume(
            f"Run {run.id} is one of {run.method}. Resume it with python -m training.{run.method}."
        )
    if run.state not in _INTERRUPTED or beginning is None:
        ended = (
            f"is {run.state} ({run.message.rstrip('.')})" if beginning else "was not started by this command"
        )
        raise CannotResume(
            f"Run {run.id} {ended}: there is nothing to resume. Start a new one without --resume, or name another run "
            "with --run-id."
        )
    return run, beginning


def check_feedback(feedback: Feedback, beginning: Beginning) -> None:
    """Raises `CannotResume` where `feedback` is not what the run began with."""
    if digest_of(feedback) != beginning.feedback:
        raise CannotResume(
            "The feedback that this run began with has changed since: some of it was edited, taken back or erased. "
            "Start a new run without --resume."
        )


def hand_over(before: Path, after: Path) -> None:
    """Give the run in `after` what the interrupted one in `before` had reached."""
    if (before / "reward_model").is_dir():
        os.replace(before / "reward_model", after / "reward_model")
    hand_over_checkpoints(before, after)


def feedback_until(feedback: Feedback, until: float) -> Feedback:
    """What had been judged up to the Unix time `until`. A judgement that was changed after that is missing."""
    kept = replace(
        feedback,
        comparisons=tuple(each for each in feedback.comparisons if each.created_at <= until),
        rankings=tuple(each for each in feedback.rankings if each.created_at <= until),
        corrections=tuple(each for each in feedback.corrections if each.created_at <= until),
        ratings=tuple(each for each in feedback.ratings if each.created_at <= until),
    )
    named = {turn for each in kept.comparisons for turn in (each.comparison.turn_A, each.comparison.turn_B)}
    named |= {turn for each in kept.rankings for turn in each.turn_ids}
    named |= {each.turn_id for each in kept.corrections} | {each.turn_id for each in kept.ratings}
    return replace(kept, turns={name: turn for name, turn in feedback.turns.items() if name in named})


def digest_of(feedback: Feedback) -> str:
    """16 hex digits over everything in `feedback`."""
    parts = (feedback.comparisons, feedback.rankings, feedback.corrections, feedback.ratings)
    said = hashlib.sha256()
    for judgement in (each for part in parts for each in part):
        said.update(repr(judgement).encode("utf-8", "surrogatepass"))
    for name in sorted(feedback.turns):
        said.update(repr(feedback.turns[name]).encode("utf-8", "surrogatepass"))
    return said.hexdigest()[:16]
