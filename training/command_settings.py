"""What the training scripts are told on the command line, and what follows from it before anything is trained.

The settings that all of them share beside the method's own (where the data come from, checkpoints, boards), how they
are read, how a resumed run gets back those that it began with, and the feedback that they name. This module starts no
run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from memory.database import Database
from memory.ledger import Ledger
from memory.settings import load_settings
from training.resuming import Beginning, CannotResume, feedback_until
from training.settings import TrainingSettings
from training.sources import Source, read_dataset
from training.tracking import Board
from training.views import Feedback, read_feedback

_OF_NOW = frozenset(
    {
        "data_dir",
        "database_url",
        "output",
        "project",
        "promote",
        "report_to",
        "requested_by",
        "resume",
        "run_id",
        "save_steps",
    }
)
"""Settings that a resumed run takes as they are given to it: they change where things are, not what comes out."""


class ScriptSettings(TrainingSettings):
    """The settings of every training script."""

    dataset: Annotated[tuple[str, ...], NoDecode] = ()
    """Learn from these instead of the studio's ledger: files (.jsonl, .json, .csv, .tsv, .parquet, also .gz), folders
    of them or names on the Hub, separated by commas. Prompts alone, for ppo, rloo and grpo, go beside the ledger's."""

    dataset_split: str = "train"
    """Which part to read of a folder or a Hub dataset that has several."""

    dataset_config: str = ""
    """Which configuration to read of a Hub dataset that has several."""

    dataset_rows: int = Field(0, ge=0)
    """Most rows to take from the dataset, drawn with the seed; 0: all."""

    save_steps: int = Field(10, ge=0)
    """Every how many optimizer steps a checkpoint is written to go on from after a crash; 0: never. (PPO writes them
    between iterations, each of which counts as its optimizer steps.)"""

    resume: bool = False
    """Go on with the last run of this script, which was killed, cancelled or failed, with the settings it began with.
    """

    report_to: Board = "none"
    """Where the metrics go beside the run's own metrics.jsonl: none, tensorboard, trackio or wandb."""

    project: str = "thumbprint"
    """The project's name there."""

    @field_validator("dataset", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> list[str]:
        parts = [value] if isinstance(value, str) else value
        return [name.strip() for part in parts for name in str(part).split(",") if name.strip()]


class CommandSettings(ScriptSettings):
    """The settings of the scripts that train an adapter."""

    promote: bool = False
    """Serve what was learned from a dataset, if the gate agrees. Without it the version is published and waits. (What
    was learned from the ledger is served in any case.)"""

    run_id: str = ""
    """Which run to resume, if not the last."""

    requested_by: str = "command line"
    """Who asked for the run, for the record."""


ScriptT = TypeVar("ScriptT", bound=ScriptSettings)


def load_script(
    settings: type[ScriptT],
    words: Sequence[str] | None,
    *,
    script: str,
    described: str,
    values: Mapping[str, Any] = MappingProxyType({}),
) -> ScriptT:
    """The settings of ``python -m training.<script>`` from the flags `words` and `values`, `described` in its help.

    Raises as `load_settings` does.
    """
    named = type(settings.__name__, (settings,), {"__doc__": described, "__module__": __name__})
    found: ScriptSettings = load_settings(
        named, words, **{**values, "_cli_prog_name": f"python -m training.{script}"}
    )
    # Of the class that has a name of its own, so that other processes can be sent it.
    return settings.model_construct(**dict(found))


def deciding(settings: ScriptSettings) -> dict[str, Any]:
    """The settings on which the result depends, as JSON values."""
    return settings.model_dump(mode="json", exclude=set(_OF_NOW))


def unusual(settings: ScriptSettings) -> dict[str, Any]:
    """Those of `deciding` that are not what they are for everybody."""
    usual = {name: field.default for name, field in type(settings).model_fields.items()}
    return {
        name: value
        for name, value in deciding(settings).items()
        if value != usual[name] and value not in ([], ())
    }


def values_to_resume(settings: ScriptSettings, beginning: Beginning) -> dict[str, Any]:
    """The values that the run began with, and those of now where they change nothing."""
    now = {name: getattr(settings, name) for name in type(settings).model_fields.keys() & _OF_NOW}
    return {**beginning.settings, **now}


def check_flags(settings: ScriptSettings, began: ScriptSettings, words: Sequence[str]) -> None:
    """Raises `CannotResume` for a flag among `words` that says otherwise than what the run began with."""
    given = {word.partition("=")[0].removeprefix("--").removeprefix("no-") for word in words}
    for name in type(settings).model_fields.keys() - _OF_NOW:
        value, asked = getattr(began, name), getattr(settings, name)
        if name.replace("_", "-") in given and value != asked:
            raise CannotResume(
                f"This run began with {name} {value}, not {asked}. Leave the flag out to resume it, or start a new run "
                "without --resume."
            )


def read_judgements(
    settings: ScriptSettings, database: Database, *, learner: str, until: float = float("inf")
) -> tuple[Source | None, Feedback]:
    """The dataset, if one is named, and the feedback that `learner` is to learn from: the dataset's, or the ledger's
    up to the Unix time `until`. Prompts alone are asked beside the ledger's.

    Raises `DatasetUnreadable`, `WrongColumns`.
    """
    if not settings.dataset:
        return None, feedback_until(read_feedback(Ledger(database)), until)
    source = read_dataset(
        settings.dataset,
        method=learner,
        split=settings.dataset_split,
        config=settings.dataset_config,
        rows=settings.dataset_rows,
        seed=settings.seed,
    )
    if source.feedback.comparisons or source.feedback.ratings:
        return source, source.feedback
    ledger = feedback_until(read_feedback(Ledger(database)), until)
    return source, replace(ledger, turns={**ledger.turns, **source.feedback.turns})
