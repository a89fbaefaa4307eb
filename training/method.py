"""What every training method is given and gives back, and which methods there are.

A method is one file with a function `learn`, and one line in `method_named`. It gets the base, what people said, and
settings; it gives back a `PeftModel` over the same base whose adapter `CANDIDATE` is what it learned. It may not
publish, promote or judge its own result; the iteration around it does that the same way for every method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from training.settings import TrainingSettings
from training.views import Feedback, PreferenceView

if TYPE_CHECKING:
    from torch import Tensor

    from training.base import BaseModel
    from training.lesson import Lesson

CANDIDATE = "default"
"""The adapter's name in the model that a method returns: PEFT saves an adapter of this name at the top of a folder."""
REFERENCE = "ref"
"""The frozen copy, in that model, of an adapter that was continued."""


@dataclass(frozen=True)
class Step:
    """One step of a training, of `total_steps`: `values` are metrics by TRL's names, `doing` says what it was part
    of."""

    step: int
    total_steps: int
    values: dict[str, float]
    doing: str = "Training"


class TrainingDiverged(ArithmeticError):
    """The loss is not a number any more. `last_good` is the `PeftModel` with the candidate as it was before that, where
    there is one."""

    def __init__(self, message: str, last_good: Any = None) -> None:
        super().__init__(message)
        self.last_good = last_good


class NothingToLearn(ValueError):
    """A method declines to train, with the reason and what would help; nothing was trained that could be served."""


@dataclass(frozen=True)
class Material:
    """What there is to learn from: people's judgements, the pairs and prompts made of them, and the lesson."""

    feedback: Feedback
    view: PreferenceView
    lesson: Lesson


class Method(Protocol):
    """A method's `learn`.

    `folder` is the run's, `previous` that of an adapter to continue. `on_step` is called after each step and `check`
    often in between; what either raises ends the training, and that is how it is cancelled. Raises `TrainingDiverged`
    and `NothingToLearn`.
    """

    def __call__(
        self,
        base: BaseModel,
        material: Material,
        *,
        settings: TrainingSettings,
        folder: Path,
        previous: Path | None,
        on_step: Callable[[Step], None],
        check: Callable[[], None],
    ) -> Any: ...


_METHODS = ("dpo", "kto", "sft", "rloo", "grpo", "ppo")


def method_named(name: str) -> Method:
    """The `learn` of the method that the setting `method` names; its module is loaded only now. Raises `KeyError` for
    ``auto``, which is for `training.auto` to turn into one of them."""
    if name not in _METHODS:
        raise KeyError(f"The method is {name!r}; expected one of {', '.join(_METHODS)}.")
    method: Method = import_module(f"training.{name}").learn
    return method


def adapter_parameters(model: Any, adapter: str) -> list[Tensor]:
    """The LoRA matrices of `adapter` in a `PeftModel`, in the model's order."""
    return [value for name, value in model.named_parameters() if f".{adapter}." in name and "lora_" in name]


def lora_config(settings: TrainingSettings) -> Any:
    """LoRA matrices on every linear layer, as every adapter here has them."""
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
