"""What every method on one of TRL's trainers shares: the arguments, where training starts, and how it is run.

A method gives a function that makes its trainer; here the trainer is watched, run, and taken apart again: the base gets
its own forward pass back, and what comes out is a plain `PeftModel` in evaluation mode. Rows are token ids already, so
that no text can become a control token.

It knows no loss, no ledger and no gate, and imports trl only when a training runs.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from training.base import BaseModel
from training.batching import LikeLengths
from training.checkpoints import completion_marker, latest_checkpoint, trl_arguments
from training.cpu_products import hasten
from training.divergence import LastGood, broken_figure
from training.method import CANDIDATE, Step, TrainingDiverged, lora_config
from training.out_of_memory import MicroBatch
from training.processes import ALONE, Processes
from training.settings import TrainingSettings
from training.sharding import sharded
from training.sparing import sparing


def total_steps(rows: int, settings: TrainingSettings) -> int:
    """Optimizer steps for so many rows: `epochs` passes, and `min_steps` at least."""
    a_pass = math.ceil(rows / (settings.batch_size * settings.gradient_accumulation))
    return max(settings.min_steps, math.ceil(settings.epochs * a_pass))


def shared_arguments(
    base: BaseModel, *, steps: int, rows: int, settings: TrainingSettings, folder: Path
) -> dict[str, Any]:
    """Arguments that every ``*Config`` of TRL takes, for `steps` optimizer steps over `rows` rows.

    Several processes divide the rows of a step: `batch_size` x `gradient_accumulation` are those of all together.
    """
    on_gpu = base.device.type == "cuda"
    batch_size, passes = base.processes.share_of_step(settings.batch_size, settings.gradient_accumulation)
    return {
        **trl_arguments(folder, settings),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": passes,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "bf16": multiplies_bfloat16(base.device),
        "use_cpu": base.device.type == "cpu",
        "gradient_checkpointing": on_gpu,
        "dataloader_pin_memory": on_gpu,
        # A last batch of one row would count as much as a full one; a pass may leave out a few rows instead.
        "dataloader_drop_last": rows >= settings.batch_size,
        "seed": settings.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether `device` has units for bfloat16 products. LoRA's own weights stay in fp32 on a CPU either way.

    On a CPU with them a step takes about 0.6 of its time in fp32; on one without them it would take longer.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    probes = (
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return device.type == "cpu" and any(bool(probe()) for probe in probes if probe is not None)


def starting_point(base: BaseModel, settings: TrainingSettings, previous: Path | None) -> dict[str, Any]:
    """The trainer's arguments ``model`` and ``peft_config``: a fresh adapter on the base, which then is the reference;
    or the adapter in `previous`, of which TRL keeps a frozen copy as the reference."""
    if previous is None:
        return {"model": base.model, "peft_config": lora_config(settings)}
    from peft import PeftModel

    model = PeftModel.from_pretrained(base.model, str(previous), CANDIDATE, is_trainable=True)
    return {"model": model, "peft_config": None}


def tokenized(trainer: type[Any], lengths: Sequence[int], settings: TrainingSettings) -> type[Any]:
    """TRL's `trainer` for rows that are token ids already, of these `lengths`, in batches of like length."""

    class Tokenized(sparing(trainer)):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any) -> Any:
            return LikeLengths(lengths, batch_size=settings.batch_size, seed=settings.seed)

    return Tokenized


def run_trainer(
    base: BaseModel,
    make: Callable[[], Any],
    *,
    folder: Path,
    on_step: Callable[[Step], None],
    rate: str = "learning_rate",
    doing: str = "Training",
) -> Any:
    """Make the trainer, run it, and return the `PeftModel` that holds what it learned as `CANDIDATE`.

    It goes on from the last checkpoint in the run's `folder`, if there is one. `on_step` is called after each optimizer
    step; what it raises ends the training (that is how it is cancelled). Raises `TrainingDiverged` when the loss is not
    finite, with the advice to lower the setting `rate` and with the adapter that last gave a finite one.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers import PrinterCallback

    own_forward = base.model.__dict__.get("forward")
    try:
        with warnings.catch_warnings():
            # TRL still says gradient_checkpointing where transformers has another word by now.
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
            hasten(base.model)
            trainer = make()
            hasten(trainer.model)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(_make_watcher(on_step, rate=rate, doing=doing))
            trainer.add_callback(completion_marker())
            _keep_frozen_apart(trainer.model)
            try:
                with sharded(base):
                    trainer.train(resume_from_checkpoint=latest_checkpoint(folder))
            except TrainingDiverged as broken:
                raise TrainingDiverged(str(broken), _taken_out(trainer)) from broken
    finally:
        # TRL lays a fused head over the base's forward; whoever uses the base next gets it back as it was.
        base.model.__dict__.pop("forward", None)
        if own_forward is not None:
            base.model.forward = own_forward
    return _taken_out(trainer)


def _keep_frozen_apart(model: Any) -> None:
    """Several processes: let nobody send the frozen weights around, which are the same, or a part, in each of them."""
    from torch.nn.parallel import DistributedDataParallel

    frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
    ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(model, frozen)


def _taken_out(trainer: Any) -> Any:
    """The `PeftModel` without its bfloat16 wrapper: whoever examines it computes as the server does."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    model.eval()
    return model


def score_reference(
    trainer: Any,
    score: Callable[[dict[str, Any]], Sequence[torch.Tensor]],
    *,
    columns: Sequence[str],
    rows: int,
    processes: Processes = ALONE,
) -> None:
    """Put what the reference makes of every row into `columns` of the trainer's rows, once, instead of once an epoch;
    `score` gives them for a batch, in that order, and `rows` go into one. `processes` divide the rows.

    TRL's own switch for this also hashes the whole model and writes a cache file, which costs more than it
    saves here.
    """
    dataset = trainer.train_dataset
    scored: dict[int, tuple[float, ...]] = {}
    mine = processes.mine(range(len(dataset)))

    def fill(piece: list[int]) -> None:
        batch = trainer.data_collator([dataset[row] for row in piece])
        scores = score(trainer._prepare_inputs(batch))
        scored.update(zip(piece, zip(*(column.tolist() for column in scores), strict=True), strict=True))

    MicroBatch(rows).over(mine, fill)
    values = processes.gathered([scored[row] for row in mine])
    for column, found in zip(columns, zip(*values, strict=True), strict=True):
        dataset = dataset.add_column(column, list(found))
    trainer.train_dataset = dataset
    trainer.precompute_ref_logps = True


def _make_watcher(on_step: Callable[[Step], None], *, rate: str, doing: str) -> Any:
    """A callback that passes each step on, and stops a training that has come apart."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
            self.good = LastGood([value for value in model.parameters() if value.requires_grad])

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not self.good.gradients_are_finite():
                self.stop("The gradient is no number", args, state, step=state.global_step + 1)
            self.good.keep()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" not in logs:
                return
            values = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
            judged: list[str] = [name for name in ("loss", "grad_norm") if name in values]
            if broken := broken_figure({name: values[name] for name in judged}):
                self.stop(broken, args, state, step=state.global_step)
            on_step(Step(state.global_step, state.max_steps, values, doing=doing))

        def stop(self, broken: str, args: Any, state: Any, *, step: int) -> None:
            self.good.restore()
            raise TrainingDiverged(
                f"{broken} at step {step}/{state.max_steps}. What is served has not changed. Lower {rate} "
                f"({args.learning_rate:g}) and retrain."
            )

    return Watcher()
