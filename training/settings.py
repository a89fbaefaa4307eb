"""What the model is and how it is retrained: the settings of the middle floor.

Extends the storage settings and those of policy optimization; the page's settings extend these. The defaults are meant
for small data; where one was chosen by measurement, on the mini model and mostly on 100 judgements, docs/benchmarks.md
has the table. This module loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from training.policy_settings import PolicySettings

Quantization = Literal["nf4", "int8", "none"]
REPOSITORY = Path(__file__).resolve().parent.parent


class TrainingSettings(PolicySettings):
    """Settings that training needs, shared by the studio and by ``python -m training.run``."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mini": {"model": str(REPOSITORY / "models" / "mini")},
        "small": {
            "model": "Qwen/Qwen2.5-0.5B-Instruct",
            "learning_rate": 1e-4,
            "reward_learning_rate": 1e-4,
            "ppo_learning_rate": 5e-5,
            "epochs": 4.0,
            "batch_size": 4,
            "max_new_tokens": 256,
            "context_tokens": 4096,
        },
        "gpu": {
            "model": "Qwen/Qwen2.5-7B-Instruct",
            "learning_rate": 2e-5,
            "reward_learning_rate": 2e-5,
            "ppo_learning_rate": 1e-5,
            "epochs": 4.0,
            "batch_size": 2,
            "gradient_accumulation": 8,
            "max_new_tokens": 512,
            "context_tokens": 8192,
        },
        "scale": {
            "model": "Qwen/Qwen2.5-7B-Instruct",
            "learning_rate": 2e-5,
            "reward_learning_rate": 2e-5,
            "ppo_learning_rate": 1e-5,
            "epochs": 4.0,
            "batch_size": 2,
            "gradient_accumulation": 8,
            "max_new_tokens": 512,
            "context_tokens": 8192,
        },
    }

    preset: Literal["mini", "small", "gpu", "scale"] = "mini"
    """A set of defaults for a kind of machine: mini (any laptop, offline), small (0.5B), gpu (7B), scale (7B,
    servers). Only mini's were chosen by measurement; the learning rates and epochs of the others are unmeasured.
    """

    model: str = str(REPOSITORY / "models" / "mini")
    """The base model: a folder or a Hub name."""

    revision: str = ""
    """Commit or tag of a Hub model. Empty: its main branch."""

    quantization: Quantization = "nf4"
    """How the base's linear weights are stored: nf4 (bitsandbytes 4-bit NormalFloat), int8 (bitsandbytes LLM.int8) or
    none. On a CPU both are unpacked at load: the rounded weights at the speed and in the memory of none."""

    chat_template: str = ""
    """File with a Jinja chat template to use instead of the model's own; the way out for a model that has none."""

    context_tokens: int = Field(1024, ge=128)
    """Most tokens that a prompt and its reply may take together; the model's own limit applies too."""

    method: Literal["auto", "dpo", "kto", "sft", "rloo", "grpo", "ppo"] = "dpo"
    """What a retraining runs: dpo (on pairs), kto (on thumbs, and pairs as two thumbs), sft (on corrections and liked
    replies), rloo, grpo or ppo (a reward model first, then policy optimization on it), or auto (what fits what people
    said)."""

    start_from: Literal["base", "previous"] = "base"
    """Where an adapter starts: base (afresh, on the whole ledger) or previous (continue the served one as the
    reference).
    """

    min_comparisons: int = Field(12, ge=4)
    """Fewest decided comparisons (no ties) before training may begin."""

    min_thumbs: int = Field(24, ge=4)
    """Fewest thumbs before kto may begin, a quarter of them of the rarer kind; a decided comparison counts as one of
    each."""

    min_demonstrations: int = Field(12, ge=4)
    """Fewest corrections and liked replies before sft may begin."""

    heldout_share: float = Field(0.2, gt=0.0, lt=0.9)
    """Share of conversations kept out of training, for the evaluation; more while that would be too few comparisons."""

    heldout_by: Literal["conversation", "rater"] = "conversation"
    """What is kept out of training as a whole: conversations, or raters (with twenty of them or more). Changed later,
    it may set aside what an earlier version was trained on."""

    lora_rank: int = Field(16, ge=1)
    """Rank r of the LoRA matrices on every linear layer."""

    lora_alpha: int = Field(32, ge=1)
    """LoRA scaling numerator; the update is multiplied by lora_alpha / lora_rank."""

    beta: float = Field(0.1, gt=0.0)
    """DPO's beta: how strongly the policy is held to the reference (Rafailov et al. 2023, equation 7)."""

    dpo_loss: Literal["sigmoid", "ipo", "robust"] = "sigmoid"
    """DPO's loss: sigmoid, ipo (Azar et al. 2023; holds back on pairs that are clear already) or robust (against
    flipped labels). With label_smoothing above 0, sigmoid is robust as well."""

    sft_weight: float = Field(1.0, ge=0.0)
    """Weight of the negative log-likelihood of chosen (KTO: of liked) replies beside the loss. It keeps replies fluent.
    """

    judged_pairs: int = Field(128, ge=0)
    """Most further pairs to train on: the model's own replies to training prompts, ordered by a judge that is fitted on
    people's comparisons. 0: people's pairs only."""

    judge_confidence: float = Field(0.8, gt=0.5, lt=1.0)
    """How sure the judge must be of a pair before it is trained on."""

    own_share: float = Field(0.0, ge=0.0, lt=1.0)
    """Last share of dpo's optimizer steps that is spent on pairs of the half-trained adapter's own replies, ordered by
    the judge. 0: none."""

    restrain: bool = True
    """Scale a trained adapter down as far as its judged gain allows (an adapter that continues another stays as it is).
    """

    restrain_forgotten: float = Field(0.015, ge=0.0, le=1.0)
    """While an adapter forgets more than this share of what the base is sure of, it is scaled down whatever the gain.
    """

    label_smoothing: float = Field(0.0, ge=0.0, lt=0.5)
    """Assumed share of flipped labels (robust DPO: Chowdhury et al. 2024); 0 is plain DPO."""

    learning_rate: float = Field(2e-3, gt=0.0)
    """Peak learning rate of AdamW."""

    epochs: float = Field(1.0, gt=0.0)
    """Passes over the training pairs."""

    min_steps: int = Field(30, ge=1)
    """Fewest optimizer steps: with little data more passes are made."""

    batch_size: int = Field(8, ge=1)
    """Pairs per forward pass."""

    gradient_accumulation: int = Field(1, ge=1)
    """Forward passes per optimizer step."""

    save_steps: int = Field(0, ge=0)
    """Every how many optimizer steps a training writes a checkpoint to go on from after a crash; 0: never. (PPO writes
    them between iterations, each of which counts as its optimizer steps.)"""

    max_new_tokens: int = Field(160, ge=1)
    """Most tokens in a reply, in the chat and in the evaluation."""

    temperature: float = Field(0.8, ge=0.0, le=2.0)
    """Sampling temperature; 0 is greedy."""

    top_p: float = Field(0.95, gt=0.0, le=1.0)
    """Nucleus sampling: the smallest set of tokens with this much probability."""

    eval_prompts: int = Field(48, ge=4)
    """Most held-out prompts that the evaluation answers."""

    min_heldout_pairs: int = Field(4, ge=1)
    """Fewest held-out comparisons for a verdict."""

    min_preference_accuracy: float = Field(0.55, ge=0.0, le=1.0)
    """Gate: least share of held-out comparisons that the candidate orders as people did, judged by the upper end of its
    interval."""

    min_win_rate: float = Field(0.5, ge=0.0, le=1.0)
    """Gate: least win rate against what is served, after its standard error is taken off."""

    max_fluency_drop: float = Field(0.5, ge=0.0)
    """Gate: most nats per token by which the base may find the candidate's replies less likely than the
    served ones.
    """

    min_on_topic: float = Field(0.8, ge=0.0, le=1.0)
    """Gate: least share of replies that speak of what was asked, as a part of what the served version reaches; judged
    by the upper end of its interval."""

    max_implausible: float = Field(0.2, ge=0.0, le=1.0)
    """Gate: largest share of replies with a token that the base gives less than one chance in eight thousand."""

    max_forgotten: float = Field(0.03, ge=0.0, le=1.0)
    """Gate: largest share of the tokens that the served version is sure of and that the candidate no longer ranks
    first."""

    max_kl: float = Field(60.0, gt=0.0)
    """Gate: most nats per reply between the candidate and the base."""

    max_repetition: float = Field(0.3, ge=0.0, le=1.0)
    """Gate: most repeated 3-grams, as a share, in the candidate's replies."""

    max_degenerate: float = Field(0.05, ge=0.0, le=1.0)
    """Gate: largest share of replies that are empty, bare punctuation, cut off by the limit, or not words."""

    max_identical: float = Field(0.3, ge=0.0, le=1.0)
    """Gate: largest share of replies that equal, word for word, a reply to another prompt."""

    seed: int = 0
    """Seed of everything random in a retraining."""

    @model_validator(mode="after")
    def _check_label_smoothing(self) -> TrainingSettings:
        if (self.dpo_loss == "robust" and not self.label_smoothing) or (
            self.dpo_loss == "ipo" and self.label_smoothing
        ):
            raise ValueError(
                f"dpo_loss is {self.dpo_loss} and label_smoothing {self.label_smoothing:g}; robust needs a "
                "label_smoothing above 0 (the share of flipped labels, such as 0.1), and ipo knows none. Change one of "
                "them."
            )
        return self

    @model_validator(mode="after")
    def _check_room_for_reply(self) -> TrainingSettings:
        if self.max_new_tokens >= self.context_tokens:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens} and context_tokens {self.context_tokens}; "
                "a reply must leave room for its prompt. Lower max_new_tokens or raise context_tokens."
            )
        return self

    @property
    def adapters_dir(self) -> Path:
        """Folder of the adapter registry."""
        return self.data_dir / "adapters"

    @property
    def runs_dir(self) -> Path:
        """Folder of the training runs: metrics, logs, reports."""
        return self.data_dir / "runs"
