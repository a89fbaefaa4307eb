"""A run's metrics, sent on as they are written to a board that a person keeps elsewhere: TensorBoard, Trackio or W&B.

All of it comes from the lines of the metrics file, so every method reports alike. None of the three is needed to train,
and none is loaded unless it is asked for. It knows no run, no method and no ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger("training")
Board = Literal["none", "tensorboard", "trackio", "wandb"]
Listener = Callable[[Mapping[str, Any]], None]
_NOT_FIGURES = {"time", "step", "total_steps", "seconds_left"}


class BoardUnavailable(RuntimeError):
    """The board that was asked for cannot be written to, with the way out."""


def check_board(board: Board) -> None:
    """Raises `BoardUnavailable` where the library of `board` is not installed."""
    if board != "none" and find_spec(board) is None:
        raise BoardUnavailable(
            f"--report-to {board} needs the library {board}, which is not installed: pip install {board}. (The metrics "
            "are in the run's metrics.jsonl in any case.)"
        )


@contextmanager
def reporting_to(
    board: Board, *, project: str, name: str, folder: Path, settings: Mapping[str, Any]
) -> Iterator[Listener]:
    """What to give each line of metrics to, so that `board` shows it as the run `name` of `project`.

    TensorBoard's files go into `folder`; the others keep their runs where they are told to by their own settings. Only
    numbers of a training step are sent, at the step that they are of. Raises `BoardUnavailable`.
    """
    check_board(board)
    if board == "none":
        yield lambda line: None
    elif board == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder)) as writer:
            writer.add_text("settings", "\n".join(f"    {key} = {value}" for key, value in settings.items()))

            def write(line: Mapping[str, Any]) -> None:
                for key, value in _figures(line).items():
                    writer.add_scalar(key, value, line["step"], walltime=line["time"])

            yield write
    else:
        library: Any = import_module(board)
        failures = (OSError, RuntimeError, ValueError, getattr(library, "Error", OSError))
        try:
            library.init(project=project, name=name, config=dict(settings))
        except failures as error:
            raise BoardUnavailable(
                f"{board} could not begin a run ({error}). Set it up, or leave --report-to out; the metrics are in the "
                "run's metrics.jsonl in any case."
            ) from error

        def send(line: Mapping[str, Any]) -> None:
            try:
                if figures := _figures(line):
                    library.log(figures, step=line["step"])
            except failures as error:
                log.warning("%s did not take step %s: %s", board, line["step"], error)

        try:
            yield send
        finally:
            library.finish()


def _figures(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a training step; nothing for a line that only says where the run is."""
    if line["phase"] != "train":
        return {}
    numbers = {key: value for key, value in line.items() if key not in _NOT_FIGURES}
    found = {key: float(value) for key, value in numbers.items() if isinstance(value, int | float)}
    return found if found.keys() - {"progress"} else {}
