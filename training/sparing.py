"""TRL's trainers with room to breathe: a batch that does not fit into memory is learned from in halves.

The step's gradient stays what `gradient_accumulation` over the smaller batches gives, so the effective batch is kept.
With several processes nothing is repeated, because the others already wait for this gradient: memory that runs out ends
the training there. It knows the order of things in a `transformers.Trainer`'s step, and no loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from training.out_of_memory import Accumulated, MicroBatch, parts_of


def sparing(trainer: type[Any], *, adds_up: bool = False) -> type[Any]:
    """The class `trainer` whose steps go on in halves when memory runs out.

    `adds_up` says that its loss is a sum over the whole step's rows or tokens already, instead of a mean over a batch.
    """
    from transformers import Trainer

    class Halving(Trainer):  # type: ignore[misc]
        """Stands between `trainer`, whose bookkeeping happens once a batch, and the step itself."""

        _prepare_inputs: Any
        current_gradient_accumulation_steps: int

        def training_step(
            self, model: Any, inputs: Mapping[str, Any], num_items_in_batch: Tensor | int | None = None
        ) -> Tensor:
            # Trainers that sample here ask the model whether that is for training.
            model.train()
            prepared = self._prepare_inputs(inputs)
            found: list[Tensor] = []

            def work() -> None:
                count = -(-self.args.per_device_train_batch_size // self.micro.rows)
                found[:] = self._steps(model, list(parts_of(prepared, count)), num_items_in_batch)

            if self.args.world_size > 1:
                work()
            else:
                so_far = Accumulated([value for value in model.parameters() if value.requires_grad])
                self.micro.step(work, undo=so_far.restore)
            return sum(found[1:], start=found[0])

        def _steps(
            self, model: Any, parts: list[dict[str, Any]], num_items_in_batch: Tensor | int | None
        ) -> list[Tensor]:
            """The losses of the parts, whose gradients are added up."""
            passes = self.current_gradient_accumulation_steps
            self._prepare_inputs = lambda inputs: inputs
            if not adds_up:
                self.current_gradient_accumulation_steps = passes * len(parts)
            try:
                return [Trainer.training_step(self, model, part, num_items_in_batch) for part in parts]
            finally:
                self.current_gradient_accumulation_steps = passes
                del self._prepare_inputs

    class Sparing(trainer, Halving):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.micro = MicroBatch(self.args.per_device_train_batch_size)

    return Sparing
