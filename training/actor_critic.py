"""Policy, critic, reward model and reference over one frozen base: three LoRA adapters, two scalar heads.

Nothing is copied and nothing is rebuilt: PEFT is told which adapter speaks, and the base alone (or, when a served
adapter is continued, a frozen copy of it) is the reference. The critic begins as the reward model read at every token
(Ouyang et al. 2022, appendix C.4). It knows no prompts, no rewards and no optimizer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.base import BaseModel
from training.cpu_products import hasten
from training.generation import speaking_as
from training.lines import Lines, action_logits, at_places, hidden_states
from training.method import CANDIDATE, REFERENCE, adapter_parameters, lora_config
from training.reward_model import REWARD, RewardModel, new_head
from training.settings import TrainingSettings

CRITIC = "critic"


class ActorCritic:
    """The adapters of one `PeftModel`. The policy's distribution is that at `temperature`, everywhere.

    `reference` is the name of the reference's adapter, None for the base alone.
    """

    def __init__(
        self, base: BaseModel, model: Any, value_head: nn.Linear, *, reference: str | None, temperature: float
    ) -> None:
        self.base, self.model, self.value_head = base, model, value_head
        self.reference, self.temperature = reference, temperature

    def speaking_as(self, adapter: str | None) -> AbstractContextManager[None]:
        """Without gradients."""
        return speaking_as(self.model, adapter)

    def learn_as(self, adapter: str) -> None:
        """From now on `adapter` computes, and its matrices alone take gradients. What came before must have been
        propagated back already."""
        self.model.set_adapter(adapter)

    def logits(self, lines: Lines) -> Tensor:
        """[rows, tokens, vocabulary] under the adapter that speaks."""
        return action_logits(self.model, lines, temperature=self.temperature)

    def values(self, lines: Lines) -> Tensor:
        """V [rows, tokens] of the state before each token; the critic must be the adapter that speaks."""
        states = at_places(hidden_states(self.model, lines), lines.before)
        found: Tensor = torch.where(lines.mask, self.value_head(states).squeeze(-1), 0.0)
        return found

    def policy_parameters(self) -> list[Tensor]:
        """What the policy's steps move."""
        return adapter_parameters(self.model, CANDIDATE)

    def critic_parameters(self) -> list[Tensor]:
        """What the critic's steps move."""
        return [*adapter_parameters(self.model, CRITIC), *self.value_head.parameters()]

    def policy_alone(self) -> Any:
        """The model with the adapters that whoever serves or examines the policy needs: the others are dropped."""
        for adapter in (CRITIC, REWARD):
            self.model.delete_adapter(adapter)
        self.model.set_adapter(CANDIDATE, inference_mode=True)
        self.model.eval()
        return self.model


def beside(reward_model: RewardModel, *, settings: TrainingSettings, previous: Path | None) -> ActorCritic:
    """Put a policy and a critic beside the reward model, on its base.

    The policy is a fresh adapter, which computes what the base computes, or the one in the folder `previous`, which
    then is the reference as well. Values are in the units of scores: rewards over the reward model's spread.
    """
    base, model = reward_model.base, reward_model.model
    torch.manual_seed(settings.seed)
    if previous is None:
        model.add_adapter(CANDIDATE, lora_config(settings))
    else:
        model.load_adapter(str(previous), adapter_name=CANDIDATE, is_trainable=True)
        model.load_adapter(str(previous), adapter_name=REFERENCE, is_trainable=False)
    model.add_adapter(CRITIC, deepcopy(model.peft_config[REWARD]))
    head = new_head(base)
    with torch.no_grad():
        pairs = zip(adapter_parameters(model, CRITIC), adapter_parameters(model, REWARD), strict=True)
        for ours, theirs in pairs:
            ours.copy_(theirs)
        head.weight.copy_(reward_model.head.weight / reward_model.spread)
        head.bias.copy_(reward_model.head.bias / reward_model.spread)
    hasten(model)
    reference = None if previous is None else REFERENCE
    return ActorCritic(base, model, head, reference=reference, temperature=settings.rollout_temperature)
