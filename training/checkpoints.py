"""Where a training that was killed goes on: checkpoints that are whole or not there, and nothing else.

A run keeps them in the folder ``checkpoints`` of its own folder. A method looks there before it begins and goes on from
what it finds; a fresh run finds nothing. TRL's trainers write folders of their own, which count only once a marker says
that they are complete; our own loops keep one file, replaced as a whole. This module knows no method, no ledger and not
whether a run may be resumed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from training.settings import TrainingSettings

FOLDER = "checkpoints"
_PREFIX, _MARKER = "checkpoint-", "COMPLETE"
_KEPT = 2
"""TRL deletes an older checkpoint before the newer one is known to be complete, so the one before is kept as well."""


class UnreadableCheckpoint(ValueError):
    """A checkpoint that cannot be continued from, with the reason and the way out."""


class Stateful(Protocol):
    """An optimizer or a schedule."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training loop in the file `path`, written every `every` steps (0: never)."""

    path: Path
    every: int

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` is to be kept."""
        return self.every > 0 and step % self.every == 0

    def save(self, state: dict[str, Any]) -> None:
        """Put `state`, nested dicts and lists of tensors and numbers, in the place of what was there, whole or not at
        all. Raises `OSError`."""
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f"{self.path.name}.part")
        with unfinished.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.path)

    def keep(self, parameters: Sequence[Tensor], parts: Sequence[Stateful], **more: Any) -> None:
        """Save the values of `parameters`, the state of `parts` and `more`."""
        values = [parameter.detach().cpu() for parameter in parameters]
        self.save({"parameters": values, "parts": [part.state_dict() for part in parts], **more})

    def resume(self, parameters: Sequence[Tensor], parts: Sequence[Stateful]) -> dict[str, Any]:
        """Put back what `keep` saved, in the same order, and return what it was given more; empty without a file."""
        state = self.load() or {"parameters": [], "parts": []}
        for parameter, saved in zip(parameters, state.pop("parameters"), strict=False):
            parameter.data.copy_(saved)
        for part, saved in zip(parts, state.pop("parts"), strict=False):
            part.load_state_dict(saved)
        return state

    def load(self) -> dict[str, Any] | None:
        """What was saved last, on the CPU; None where nothing was. Raises `UnreadableCheckpoint`.

        Tensors and plain values only: a file that holds anything else is refused, and no code in it is run.
        """
        if not self.path.is_file():
            return None
        import pickle

        import torch

        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise UnreadableCheckpoint(
                f"The checkpoint {self.path} cannot be read ({str(error).splitlines()[0]}). Delete it to train from "
                "the beginning."
            ) from error
        return state


NO_CHECKPOINT = Checkpoint(Path(), every=0)
"""For a loop that is not to leave any."""


def checkpoint_in(folder: Path, name: str, *, every: int) -> Checkpoint:
    """The checkpoint `name` of the run in `folder`."""
    return Checkpoint(folder / FOLDER / f"{name}.pt", every)


def latest_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint that a TRL trainer left in the run's `folder`, or None."""
    complete = [path.parent for path in (folder / FOLDER).glob(f"{_PREFIX}*/{_MARKER}")]
    return max(complete, key=lambda path: int(path.name.removeprefix(_PREFIX)), default=None)


def trl_arguments(folder: Path, settings: TrainingSettings) -> dict[str, Any]:
    """Where, and every how many optimizer steps, a TRL trainer writes its checkpoints: keywords of its config."""
    return {
        "output_dir": str(folder / FOLDER),
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 1,
        "save_total_limit": _KEPT,
    }


def completion_marker() -> Any:
    """A callback for a TRL trainer that marks a checkpoint as complete once all of it is on disk, and has none written
    after the last step: a trainer that goes on from there would take one step too many."""
    from transformers import TrainerCallback

    class Marker(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= state.max_steps:
                control.should_save = False

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                written = Path(args.output_dir) / f"{_PREFIX}{state.global_step}"
                for file in written.rglob("*"):
                    _sync(file)
                (written / _MARKER).touch()

    return Marker()


def forget_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of the run in `folder`, which has ended well and needs them no more."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def hand_over_checkpoints(before: Path, after: Path) -> None:
    """Give the run in `after` what the one in `before` had reached, in one step; nothing where it had reached
    nothing."""
    if (before / FOLDER).is_dir():
        os.replace(before / FOLDER, after / FOLDER)


def _sync(file: Path) -> None:
    """Have the system write `file` out, so that a marker behind it says the truth after a power cut too."""
    if file.is_file():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
