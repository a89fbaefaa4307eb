"""What tests run in several processes at once, and in one to compare with: meetings, our own trainers, whole commands.

``python tests/processes_job.py meetings|trainers|commands ...``, alone or under a launcher. It asserts nothing by
itself, except that what is said to hold in every process does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

FLAGS = {
    "quantization": "none",
    "context_tokens": 256,
    "max_new_tokens": 8,
    "min_steps": 4,
    "epochs": 1,
    "batch_size": 2,
    "gradient_accumulation": 2,
    "learning_rate": 0.01,
    "lora_rank": 2,
    "reward_learning_rate": 0.01,
    "reward_epochs": 3,
    "ppo_iterations": 2,
    "rollout_size": 8,
    "group_iterations": 2,
    "group_size": 2,
    "eval_prompts": 4,
    "min_comparisons": 12,
    "min_heldout_pairs": 2,
    "judged_pairs": 16,
}
"""Settings of the commands: steps of four rows, which two processes take two each."""


def meetings(out: str) -> None:
    """Every kind of meeting once; what each process saw goes to ``OUT.RANK``."""
    import torch

    from training.processes import joined

    with joined() as processes:
        seen: dict[str, object] = {"rank": processes.rank, "count": processes.count}
        mine = processes.mine(list(range(5)))
        seen["gathered"] = processes.gathered([10 * item for item in mine])
        tensors = [torch.full((2,), float(processes.rank + 1)), torch.tensor([[1.0 + processes.rank]])]
        processes.add_up(tensors)
        seen["sums"] = [tensor.tolist() for tensor in tensors]
        seen["totals"] = processes.totals({"a": 1.0} if processes.leads else {"a": 2.0, "b": 3.0})
        seen["any"] = [processes.any(processes.rank == 1), processes.any(False)]
        seen["pooled"] = processes.pooled([processes.rank] * 2, lambda rows: [row + 1 for row in rows])
        seen["led"] = processes.led(lambda: f"said by {processes.rank}")
        seen["raised"] = _raised(lambda: processes.led(_refuse))
        processes.deferred(_refuse)()
        seen["deferred"] = _raised(processes.meet)
        processes.meet()
        Path(f"{out}.{processes.rank}").write_text(json.dumps(seen), encoding="utf-8")


def _refuse() -> None:
    raise ValueError(f"no, says {os.environ.get('RANK')}")


def _raised(action) -> str:
    try:
        action()
    except ValueError as error:
        return str(error)
    return "nothing"


def trainers(base: str, out: str) -> None:
    """A reward model and PPO on it in each of its modes, by our own loops; the adapters of all go to OUT."""
    from judged import quick_settings
    from safetensors.torch import save_file
    from test_ppo import PTX, QUICK, prompts_of

    from training.actor_critic import beside
    from training.base import load_base
    from training.method import adapter_parameters
    from training.ppo import optimize
    from training.processes import joined
    from training.reward_fitting import EncodedOrdering, fit
    from training.reward_model import REWARD

    found, scores = {}, {}
    with joined() as processes:
        for mode in ("ppo", "reinforce", "trpo"):
            settings = quick_settings(
                **{**QUICK, "batch_size": 2, "gradient_accumulation": 2, "rollout_size": 6, "min_steps": 3},
                model=base,
                policy_update=mode,
                trust_iterations=3,
                reward_epochs=0.1,
                reward_learning_rate=1e-2,
            )
            loaded = load_base(settings, processes)
            prompt = tuple(prompts_of(loaded, 1)[0])
            pairs = [((40, 41, 2), (50, 2)), ((42, 2), (51, 52, 2)), ((43, 44, 2), (53, 54, 2))]
            orderings = [EncodedOrdering(prompt, pair, False, 1.0) for pair in pairs]
            reward_model = fit(loaded, orderings, settings=settings)
            # As a save does, in the leading process alone.
            processes.led(lambda model=reward_model.model: len(model.state_dict()))
            for at, value in enumerate(adapter_parameters(reward_model.model, REWARD)):
                found[f"{mode}.reward.{at}"] = value.detach().clone()
            actors = beside(reward_model, settings=settings, previous=None)
            steps: list[dict[str, float]] = []
            optimize(
                actors,
                reward_model,
                prompts_of(loaded),
                ptx=PTX,
                settings=settings,
                on_step=lambda step, steps=steps: steps.append(step.values),
            )
            for at, value in enumerate([*actors.policy_parameters(), *actors.critic_parameters()]):
                found[f"{mode}.policy.{at}"] = value.detach().clone()
            scores[mode] = [step["objective/scores"] for step in steps]
        everybodys = [tensor.clone() for tensor in found.values()]
        processes.add_up(everybodys)
        for whole, own in zip(everybodys, found.values(), strict=True):
            assert (whole == own * processes.count).all(), "the processes hold different adapters"
        if processes.leads:
            save_file(found, out, metadata={"scores": json.dumps(scores)})


def commands(data: str, base: str, words: str) -> None:
    """``python -m training.run`` for each of the methods in `words`, ``method`` or ``method+--flag=value``, or the
    script of the reward model."""
    import training.trl_training

    # Sums of bfloat16 products depend on how rows are padded together.
    training.trl_training.multiplies_bfloat16 = lambda device: False
    from training.processes import joined
    from training.reward_command import main as fit
    from training.run import main

    launched = dict(os.environ)
    shared = [word for name, value in FLAGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    with joined():
        for word in words.split(","):
            method, *flags = word.split("+")
            place = ["--data-dir", f"{data}/{word}", "--model", base]
            os.environ.update(launched)
            if method == "reward_model":
                code = fit([*place, *shared, *flags])
            else:
                code = main([*place, "--method", method, *shared, *flags])
            print(word, code, flush=True)


if __name__ == "__main__":
    {"meetings": meetings, "trainers": trainers, "commands": commands}[sys.argv[1]](*sys.argv[2:])
