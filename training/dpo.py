"""From pairs to an adapter: Direct Preference Optimization on TRL's trainer, with a term that keeps replies
fluent.

The loss of a batch is  -mean log sigmoid(beta * (margin of log-ratios)) + sft_weight * NLL a token of chosen
replies (Rafailov et al. 2023, equation 7; the second term as in RPO, Liu et al. 2024). LoRA on every linear
layer is all that moves. The reference is the base, or, when an adapter is continued, a frozen copy of that
adapter.

This is the only module that imports trl, and it does so when it trains. It takes token ids and gives back a
model; it knows no ledger, no registry, no gate, and writes no files but TRL's scratch folder.
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
from training.method import CANDIDATE, Material, Step, TrainingDiverged, lora_config
from training.pairs import EncodedPair
from training.settings import TrainingSettings


def learn(
    base: BaseModel,
    material: Material,
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None,
    on_step: Callable[[Step], None],
    check: Callable[[], None],
) -> Any:
    """`train` on the pairs of the lesson, as `training.method.Method` asks; `on_step` comes often enough to check."""

    def on_each_step(step: Step) -> None:
        check()
        on_step(step)

    pairs = material.lesson.pairs
    return train(base, pairs, settings=settings, folder=folder, previous=previous, on_step=on_each_step)


def total_steps(pairs: int, settings: TrainingSettings) -> int:
    """Optimizer steps for so many pairs: `epochs` passes, and `min_steps` at least."""
    a_pass = math.ceil(pairs / (settings.batch_size * settings.gradient_accumulation))
    return max(settings.min_steps, math.ceil(settings.epochs * a_pass))


def train(
    base: BaseModel,
    pairs: Sequence[EncodedPair],
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Any:
    """Train an adapter on `pairs` and return the `PeftModel` that holds it as `CANDIDATE`, over the same base
    weights.

    `previous` is the folder of an adapter to continue. `on_step` is called after each optimizer step; what it
    raises ends the training (that is how it is cancelled). Raises `TrainingDiverged` when the loss is not
    finite and `ValueError` when there is no pair. The same pairs, settings and threads give the same adapter.
    """
    if not pairs:
        raise ValueError("There is no pair to train on: all were dropped as too long. Raise context_tokens.")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers import PrinterCallback

    own_forward = base.model.__dict__.get("forward")
    try:
        with warnings.catch_warnings():
            # TRL still says gradient_checkpointing where transformers has another word by now.
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
            trainer = _make_trainer(base, pairs, settings=settings, folder=folder, previous=previous)
            _score_reference(trainer, batch_size=2 * settings.batch_size)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(_make_watcher(on_step, learning_rate=settings.learning_rate))
            trainer.train()
    finally:
        # TRL lays a fused head over the base's forward; whoever uses the base next gets it back as it was.
        base.model.__dict__.pop("forward", None)
        if own_forward is not None:
            base.model.forward = own_forward
    # Without its bfloat16 wrapper: whoever evaluates or fingerprints the model computes as the server does.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    model.eval()
    return model


def _make_trainer(
    base: BaseModel,
    pairs: Sequence[EncodedPair],
    *,
    settings: TrainingSettings,
    folder: Path,
    previous: Path | None,
) -> Any:
    from datasets import Dataset
    from peft import PeftModel
    from trl import DPOTrainer

    class PairTrainer(DPOTrainer):  # type: ignore[misc]
        """TRL's trainer on rows that are tokenized already, so that no text can become a control token, and in
        batches of like length.
        """

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any) -> Any:
            lengths = [pair.longest for pair in pairs]
            return LikeLengths(lengths, batch_size=settings.batch_size, seed=settings.seed)

    model, lora = base.model, lora_config(settings)
    if previous is not None:
        model, lora = PeftModel.from_pretrained(model, str(previous), CANDIDATE, is_trainable=True), None
    rows = {"prompt_ids": [list(pair.prompt) for pair in pairs]}
    rows |= {"chosen_ids": [list(pair.chosen) for pair in pairs]}
    rows |= {"rejected_ids": [list(pair.rejected) for pair in pairs]}
    return PairTrainer(
        model=model,
        args=_arguments(base, len(pairs), settings=settings, folder=folder),
        train_dataset=Dataset.from_dict(rows),
        processing_class=base.tokenizer,
        peft_config=lora,
    )


def _arguments(base: BaseModel, pairs: int, *, settings: TrainingSettings, folder: Path) -> Any:
    from trl import DPOConfig

    on_gpu, on_cpu = base.device.type == "cuda", base.device.type == "cpu"
    preference = "robust" if settings.label_smoothing else "sigmoid"
    return DPOConfig(
        output_dir=str(folder),
        max_steps=total_steps(pairs, settings),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        loss_type=[preference, "sft"] if settings.sft_weight else [preference],
        loss_weights=[1.0, settings.sft_weight] if settings.sft_weight else [1.0],
        label_smoothing=settings.label_smoothing,
        beta=settings.beta,
        max_length=None,
        bf16=_multiplies_bfloat16(base.device),
        use_cpu=on_cpu,
        gradient_checkpointing=on_gpu,
        dataloader_pin_memory=on_gpu,
        # A last batch of one pair would count as much as a full one; a pass may leave out a few pairs instead.
        dataloader_drop_last=pairs >= settings.batch_size,
        seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether `device` has units for bfloat16 products. LoRA's own weights stay in fp32 on a CPU either way.

    On a CPU with them a step takes about 0.6 of its time in fp32; on one without them it would take longer.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    probes = (
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return device.type == "cpu" and any(bool(probe()) for probe in probes if probe is not None)


def _score_reference(trainer: Any, *, batch_size: int) -> None:
    """Put the reference's log-probabilities of every reply into the rows, once, instead of once an epoch.

    TRL's own switch for this also hashes the whole model and writes a cache file, which costs more than it
    saves here.
    """
    from torch.utils.data import DataLoader

    chosen: list[float] = []
    rejected: list[float] = []
    rows = trainer.train_dataset
    for batch in DataLoader(rows, batch_size=batch_size, collate_fn=trainer.data_collator):
        scores = trainer.compute_ref_log_probs(trainer.model, trainer._prepare_inputs(batch))
        chosen += scores[0].tolist()
        rejected += scores[1].tolist()
    trainer.train_dataset = rows.add_column("ref_chosen_logps", chosen).add_column(
        "ref_rejected_logps", rejected
    )
    trainer.precompute_ref_logps = True


def _make_watcher(on_step: Callable[[Step], None], *, learning_rate: float) -> Any:
    """A callback that passes each step on, and stops a training that has come apart."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" not in logs:
                return
            values = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
            broken = [name for name in ("loss", "grad_norm") if not math.isfinite(values.get(name, 0.0))]
            if broken:
                raise TrainingDiverged(
                    f"{broken[0]} became {values[broken[0]]} at step {state.global_step}/{state.max_steps}. "
                    f"The candidate was thrown away; what is served has not changed. Lower learning_rate "
                    f"({learning_rate:g}) and retrain."
                )
            on_step(Step(state.global_step, state.max_steps, values))

    return Watcher()
