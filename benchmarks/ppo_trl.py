"""`benchmarks.ppo`'s job by TRL 1.12's ``trl.experimental.ppo``: ``python -m benchmarks.ppo_trl JOB FOLDER``.

TRL 1.12 must come first on the module path; `benchmarks.ppo` sees to that. Policy, value model and reward model are
three models in the job's quantization, as TRL's trainer takes them. The policy gets LoRA by its `peft_config`, so
that the reference is the policy with its adapter off; the other two carry the saved reward model's LoRA matrices and
head, and the value model's learn, as ours do. Everything that is not in the job is left as TRL has it, but for fp32
instead of bf16. It changes nothing in TRL.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.measuring import Meter, resident_mb, tensor_mb
from benchmarks.ppo_job import Answer, Job

VERSION = "1.12.0"


def main() -> None:
    """Do the job, leave the answer, exit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    answer_to(Job.read(options.job), options.folder).write(options.folder)


def answer_to(job: Job, folder: Path) -> Answer:
    """Load, train, save. Raises `RuntimeError` for another version of TRL."""
    import trl

    if trl.__version__ != VERSION:
        raise RuntimeError(f"This is TRL {trl.__version__}; expected {VERSION} first on the module path.")
    torch.set_num_threads(job.threads)
    heard: list[dict[str, float]] = []
    trainer = _trainer(job, folder, heard)
    models = [trainer.policy_model, trainer.value_model, trainer.reward_model]
    weights, loaded = tensor_mb(*models), resident_mb()
    with Meter() as meter:
        trainer.train()
    trainer.accelerator.unwrap_model(trainer.model).policy.save_pretrained(str(folder / "adapter"))
    return Answer(
        taken=meter.taken,
        model_mb=weights,
        loaded_mb=loaded,
        episodes=len(heard) * job.rollout,
        scores=[figures["objective/scores"] for figures in heard],
        kl=[figures["objective/kl"] for figures in heard],
    )


def _trainer(job: Job, folder: Path, heard: list[dict[str, float]]) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOTrainer

    from training.model_files import find_model

    class Listener(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "objective/kl" in logs:
                heard.append(dict(logs))

    model_folder, _ = find_model(job.model)
    torch.manual_seed(job.seed)
    rows = Dataset.from_dict({"input_ids": job.prompts})
    return PPOTrainer(
        args=_arguments(job, folder),
        processing_class=_tokenizer(model_folder),
        model=_loaded(AutoModelForCausalLM, model_folder, job),
        ref_model=None,
        reward_model=_judging(
            _loaded(AutoModelForSequenceClassification, model_folder, job), job, learn=False
        ),
        value_model=_judging(_loaded(AutoModelForSequenceClassification, model_folder, job), job, learn=True),
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=[Listener()],
        peft_config=LoraConfig(
            r=job.lora_rank,
            lora_alpha=job.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )


def _arguments(job: Job, folder: Path) -> Any:
    """One minibatch is one optimizer step, which TRL has only without gradient accumulation."""
    from trl.experimental.ppo import PPOConfig

    return PPOConfig(
        output_dir=str(folder / "scratch"),
        total_episodes=job.episodes,
        per_device_train_batch_size=job.rollout,
        gradient_accumulation_steps=1,
        num_mini_batches=job.rollout // job.batch,
        num_ppo_epochs=job.epochs,
        local_rollout_forward_batch_size=job.rollout,
        response_length=job.reply_tokens,
        stop_token="eos",
        missing_eos_penalty=job.missing_eos_penalty,
        temperature=job.temperature,
        learning_rate=job.learning_rate,
        kl_coef=job.kl_coefficient,
        cliprange=job.clip,
        cliprange_value=job.clip,
        gamma=job.discount,
        lam=job.decay,
        num_sample_generations=0,
        seed=job.seed,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")


def _loaded(kind: Any, folder: Path, job: Job) -> Any:
    from training.quantization import quantization_config

    named = {"num_labels": 1} if "Sequence" in kind.__name__ else {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return kind.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=quantization_config(job.quantization, dtype=dtype),
        device_map={"": device},
        local_files_only=True,
        **named,
    )


def _judging(model: Any, job: Job, *, learn: bool) -> Any:
    """`model` with the saved reward model's LoRA matrices and head in it; they alone take gradients, if any does."""
    from peft import LoraConfig, inject_adapter_in_model
    from safetensors.torch import load_file

    folder = Path(job.reward_model)
    spread = float(json.loads((folder / "reward_model.json").read_text(encoding="utf-8"))["spread"])
    config = LoraConfig.from_pretrained(str(folder / "reward"))
    inject_adapter_in_model(LoraConfig(**_same_shape(config)), model, "default")
    saved = load_file(folder / "reward" / "adapter_model.safetensors")
    named = {
        name.removeprefix("base_model.model.").replace(".weight", ".default.weight"): value
        for name, value in saved.items()
    }
    if unknown := model.load_state_dict(named, strict=False).unexpected_keys:
        raise RuntimeError(f"The reward model has {unknown[0]}, which TRL's copy of it has not.")
    head = load_file(folder / "head.safetensors")
    model.score = nn.Linear(head["weight"].shape[1], 1, device=model.device, dtype=torch.float32)
    with torch.no_grad():
        model.score.weight.copy_(head["weight"] / spread)
        model.score.bias.copy_(head["bias"] / spread)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learn and ("lora_" in name or name.startswith("score.")))
    return model


def _same_shape(config: Any) -> dict[str, Any]:
    return {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "target_modules": config.target_modules,
    }


if __name__ == "__main__":
    main()
