"""`benchmarks.trainers`' ways of one training, each run in a process of its own:

    python -m benchmarks.trainers_ways {dpo,kto,reward} {ours,plain,same} JOB FOLDER

``ours`` is this repository's. ``plain`` is TRL's trainer as its documentation sets it up for QLoRA: a model in the
job's quantization, `peft_config`, text rows, and every default but the numbers that the job names. ``same`` is TRL's
trainer given all that may change the numbers as ours have it (the unpacked weights, the precision, the order of the
rows, the first LoRA matrices), to see whether ours computes the same thing. Each writes an `Answer` into FOLDER.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import Meter, Taken
from training.base import BaseModel, load_base
from training.batching import LikeLengths
from training.method import Step, lora_config
from training.pairs import EncodedPair
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Job:
    """Pairs as token ids and the same as TRL's conversational rows, and our settings that differ from the defaults."""

    pairs: list[list[list[int]]]
    rows: list[dict[str, Any]]
    settings: dict[str, Any]
    threads: int

    @property
    def encoded(self) -> list[EncodedPair]:
        return [EncodedPair(*(tuple(ids) for ids in pair)) for pair in self.pairs]


@dataclass(frozen=True)
class Answer:
    """What a training took, from the loaded model to the trained one, and its loss at every step."""

    taken: Taken
    losses: list[float]


Way = Callable[[Job, TrainingSettings, Path], Answer]


def main() -> None:
    """Train, leave the answer, exit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=("dpo", "kto", "reward"))
    parser.add_argument("way", choices=("ours", "plain", "same"))
    parser.add_argument("job", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    job = Job(**json.loads(options.job.read_text(encoding="utf-8")))
    torch.set_num_threads(job.threads)
    settings = TrainingSettings(**job.settings)
    ways: dict[str, Way] = {
        "ours": _ours(options.method),
        "plain": _plain(options.method),
        "same": _same(options.method),
    }
    answer = ways[options.way](job, settings, options.folder)
    (options.folder / "answer.json").write_text(json.dumps(asdict(answer)), encoding="utf-8")


def _ours(method: str) -> Way:
    def answer(job: Job, settings: TrainingSettings, folder: Path) -> Answer:
        from training import dpo, kto
        from training.reward_fitting import EncodedOrdering, fit

        base, steps = load_base(settings), list[Step]()
        pairs = job.encoded
        with Meter() as meter:
            if method == "dpo":
                dpo.train(base, pairs, settings=settings, folder=folder, on_step=steps.append)
            elif method == "kto":
                kto.train(
                    base, kto.sides_of_pairs(pairs), settings=settings, folder=folder, on_step=steps.append
                )
            else:
                orderings = [EncodedOrdering(p.prompt, (p.chosen, p.rejected), False, 1.0) for p in pairs]
                fit(base, orderings, settings=settings, on_step=steps.append)
        name = "reward_model/loss" if method == "reward" else "loss"
        return Answer(meter.taken, [step.values[name] for step in steps])

    return answer


def _plain(method: str) -> Way:
    def answer(job: Job, settings: TrainingSettings, folder: Path) -> Answer:
        import trl
        from datasets import Dataset

        model, tokenizer = _stored(settings, judging=method == "reward"), _tokenizer(settings)
        rows = job.rows
        if method == "kto":
            rows = [
                {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
                for row in rows
                for side in ("chosen", "rejected")
            ]
        if method == "reward":
            rows = [row | {"margin": settings.reward_margin} for row in rows]
        name = {"dpo": "DPO", "kto": "KTO", "reward": "Reward"}[method]
        lora = lora_config(settings)
        if method == "reward":
            lora.task_type, lora.modules_to_save = "SEQ_CLS", ["score"]
        with Meter() as meter:
            trainer = getattr(trl, f"{name}Trainer")(
                model=model,
                args=getattr(trl, f"{name}Config")(**_arguments(method, len(job.pairs), settings, folder)),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                peft_config=lora,
            )
            trainer.train()
        return Answer(meter.taken, _losses(trainer))

    return answer


def _same(method: str) -> Way:
    def answer(job: Job, settings: TrainingSettings, folder: Path) -> Answer:
        import trl
        from datasets import Dataset

        from training.trl_training import multiplies_bfloat16

        base, pairs = load_base(settings), job.encoded
        like = [pair.longest for pair in pairs]
        name = {"dpo": "DPO", "reward": "Reward"}.get(method)
        if name is None:
            raise ValueError(
                "KTO's batches are made by TRL and by ours in different ways; there is no common order."
            )

        class InOurOrder(getattr(trl, f"{name}Trainer")):  # type: ignore[misc]
            def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
                return dataset

            def _get_train_sampler(self, *_: Any) -> Any:
                return LikeLengths(like, batch_size=settings.batch_size, seed=settings.seed)

        numbers = _arguments(method, len(pairs), settings, folder) | {
            "max_length": None,
            "gradient_checkpointing": False,
            "bf16": method == "dpo" and multiplies_bfloat16(base.device),
            "dataloader_drop_last": method == "dpo" and len(pairs) >= settings.batch_size,
        }
        start = _judging_as_ours(base, settings) if method == "reward" else {"model": base.model}
        with Meter() as meter:
            trainer = InOurOrder(
                **({"peft_config": lora_config(settings)} | start),
                args=getattr(trl, f"{name}Config")(**numbers),
                train_dataset=Dataset.from_dict(_columns(method, pairs, settings)),
                processing_class=base.tokenizer,
            )
            trainer.train()
        return Answer(meter.taken, _losses(trainer))

    return answer


def _columns(method: str, pairs: Sequence[EncodedPair], settings: TrainingSettings) -> dict[str, list[Any]]:
    """The rows as TRL has them once they are tokenized."""
    opening = [list(pair.prompt) for pair in pairs]
    if method == "dpo":
        sides = {"chosen_ids": [list(pair.chosen) for pair in pairs]}
        return {"prompt_ids": opening, **sides, "rejected_ids": [list(pair.rejected) for pair in pairs]}
    return {
        "chosen_ids": [[*pair.prompt, *pair.chosen] for pair in pairs],
        "rejected_ids": [[*pair.prompt, *pair.rejected] for pair in pairs],
        "margin": [settings.reward_margin] * len(pairs),
    }


def _judging_as_ours(base: BaseModel, settings: TrainingSettings) -> dict[str, Any]:
    """TRL's kind of reward model over the base's own layers, with the matrices and the head that ours begins with."""
    from peft import get_peft_model
    from transformers import AutoModelForSequenceClassification

    from training.reward_model import new_head

    config = deepcopy(base.model.config)
    config.num_labels = 1
    model: Any = AutoModelForSequenceClassification.from_config(config)
    model.model = base.model.model
    lora = lora_config(settings)
    lora.task_type, lora.target_modules = None, _names_of_linears(base.model.model)
    torch.manual_seed(settings.seed)
    adapted: Any = get_peft_model(model, lora)
    model.score = new_head(base)
    model.score.weight.requires_grad_(True)
    model.score.bias.requires_grad_(False)
    return {"model": adapted, "peft_config": None}


def _names_of_linears(model: Any) -> list[str]:
    return sorted(
        {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    )


def _stored(settings: TrainingSettings, *, judging: bool) -> Any:
    """The model as transformers and bitsandbytes hold it."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from training.model_files import find_model
    from training.quantization import quantization_config

    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    folder, _ = find_model(settings.model)
    kind: Any = AutoModelForSequenceClassification if judging else AutoModelForCausalLM
    return kind.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=quantization_config(settings.quantization, dtype=dtype),
        device_map={"": "cuda" if on_gpu else "cpu"},
        local_files_only=True,
        **({"num_labels": 1} if judging else {}),
    )


def _tokenizer(settings: TrainingSettings) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(settings.model, local_files_only=True)


def _arguments(method: str, pairs: int, settings: TrainingSettings, folder: Path) -> dict[str, Any]:
    """What the job names; the rest is TRL's."""
    from training.reward_fitting import reward_steps
    from training.trl_training import total_steps

    named: dict[str, Any] = {
        "output_dir": str(folder / "scratch"),
        "per_device_train_batch_size": settings.batch_size,
        "seed": settings.seed,
        "lr_scheduler_type": "linear",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }
    if method == "reward":
        steps, rate = reward_steps(pairs, settings), settings.reward_learning_rate
        return named | {"max_steps": steps, "learning_rate": rate, "weight_decay": 0.01}
    rows = pairs if method == "dpo" else 2 * pairs
    named |= {
        "max_steps": total_steps(rows, settings),
        "learning_rate": settings.learning_rate,
        "warmup_steps": 0.1,
    }
    if method == "dpo":
        named |= {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, settings.sft_weight]}
    return named | {"beta": settings.beta}


def _losses(trainer: Any) -> list[float]:
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    main()
