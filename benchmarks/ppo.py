"""Our PPO beside TRL's last one: the same work, in turns, each in a process of its own.

    pip install --no-deps --target FOLDER trl==1.12.0
    python -m benchmarks.ppo --trl FOLDER [--rounds 3] [--episodes 384]

TRL removed PPO in 1.13; 1.12.0 is the last release with ``trl.experimental.ppo``. It needs a folder of its own, without
its dependencies, beside the newer TRL that everything else uses.

A reward model is fitted on the votes of a simulated rater (or named by `--reward-model`); then both implementations get
the same base, quantization, prompts, reward model, LoRA rank, batch sizes, passes, coefficients, learning rate and
seeds (`benchmarks.ppo_job`). Ours also runs as it is shipped, ending an iteration's passes on `stop_kl`. All adapters
answer the same held-out questions at the end, and one reward model and one divergence judge them alike. Prints a table
(medians, least and most) and one JSON line. It takes no side in how either does its work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.machine import ROOT, describe
from benchmarks.ppo_job import Answer, Job
from training.settings import TrainingSettings

OURS, SHIPPED, TRL = "ours", "ours, as shipped", "TRL 1.12.0"
HELD_OUT_SEED = 4_000
"""Of the questions that are put to every adapter at the end."""


@dataclass(frozen=True)
class Run:
    """An implementation, a round, what it took, and its adapter's mean score and KL (nats a reply) on held-out
    questions."""

    who: str
    seed: int
    answer: Answer
    score: float
    kl: float


def main() -> int:
    """Measure, print, exit: 0, or 2 where TRL is not to be had."""
    options = _parser().parse_args()
    ways = {OURS: [], SHIPPED: ["--as-shipped"]}
    if options.trl:
        if not (options.trl / "trl" / "experimental" / "ppo").is_dir():
            print(f"{options.trl} holds no TRL with PPO. Run: {INSTALL.format(options.trl)}", file=sys.stderr)
            return 2
        ways[TRL] = []
    with tempfile.TemporaryDirectory(prefix="thumbprint-ppo-") as name:
        work = options.keep or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        reward_model = options.reward_model or _reward_model(work / "reward_model", options)
        runs = _all_runs(options, ways, reward_model, work)
        saved = _unpacked_mb(options)
    print(table(runs))
    if saved:
        print(
            f"Ours unpacks the weights on a CPU; kept in {options.quantization}, its models take {saved:.1f} MB less."
        )
    about = {"benchmark": "ppo", **describe(), "unpacked_mb": saved}
    print(json.dumps(about | {"runs": [asdict(run) for run in runs]}))
    return 0


INSTALL = "pip install --no-deps --target {} trl==1.12.0"


def _all_runs(
    options: argparse.Namespace, ways: dict[str, list[str]], reward_model: Path, work: Path
) -> list[Run]:
    prompts = _prompts(options)
    judge: Callable[[Path], tuple[float, float]] | None = None
    runs: list[Run] = []
    for seed in range(options.seed, options.seed + options.rounds):
        job = _job(options, prompts, reward_model, seed)
        for who, flags in ways.items():
            folder = work / f"{who.replace(' ', '-').replace(',', '')}-{seed}"
            answer = _run(who, job, folder, flags, trl=options.trl)
            judge = judge or _judge(job)
            score, kl = judge(folder / "adapter")
            runs.append(Run(who, seed, answer, score, kl))
            print(_line(who, [runs[-1]]), file=sys.stderr)
    return runs


def _run(who: str, job: Job, folder: Path, flags: Sequence[str], *, trl: Path | None) -> Answer:
    """One implementation, one round, in a fresh process."""
    folder.mkdir(parents=True, exist_ok=True)
    module = "benchmarks.ppo_trl" if who == TRL else "benchmarks.ppo_ours"
    paths = [str(trl.resolve())] if who == TRL and trl else []
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)]),
        "OMP_NUM_THREADS": str(job.threads),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-m", module, str(job.write(folder / "job.json")), str(folder), *flags]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return Answer.read(folder)


def _job(options: argparse.Namespace, prompts: list[list[int]], reward_model: Path, seed: int) -> Job:
    settings = TrainingSettings()
    return Job(
        model=settings.model,
        quantization=options.quantization,
        prompts=prompts,
        reward_model=str(reward_model.resolve()),
        episodes=options.episodes,
        rollout=options.rollout,
        batch=options.batch,
        epochs=options.epochs,
        reply_tokens=options.tokens,
        learning_rate=options.learning_rate,
        temperature=1.0,
        kl_coefficient=settings.kl_coefficient,
        clip=settings.clip_policy,
        discount=settings.discount,
        decay=settings.gae_decay,
        missing_eos_penalty=settings.missing_eos_penalty,
        lora_rank=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        seed=seed,
        threads=options.threads,
    )


def _prompts(options: argparse.Namespace) -> list[list[int]]:
    """What simulated people ask, as ids; none so long that it would be all padding to the others."""
    from training.base import load_tokenizer
    from training.mini.heldout import training_prompts
    from training.prompt import encode_prompt

    tokenizer = load_tokenizer(Path(TrainingSettings().model), template="")
    asked = training_prompts(options.prompts, options.seed)
    encoded = [encode_prompt(tokenizer, prompt) for prompt in asked]
    return [ids for ids in encoded if len(ids) <= options.prompt_tokens]


def _reward_model(folder: Path, options: argparse.Namespace) -> Path:
    """Fit one on a simulated rater's votes and save it."""
    import torch

    from benchmarks.rated import judged, talk
    from benchmarks.raters import find_rater
    from training.base import load_base
    from training.orderings import orderings_of, split_orderings
    from training.reward_examination import examine
    from training.reward_fitting import encode_orderings, fit
    from training.views import preference_view

    torch.set_num_threads(options.threads)
    settings = TrainingSettings(quantization=options.quantization)
    base = load_base(settings)
    pairs = talk(base, pairs=options.votes, seed=options.seed, settings=settings, folder=folder.parent)
    feedback = judged(pairs, find_rater(options.rater))
    view = preference_view(feedback, share=settings.heldout_share, least=settings.min_heldout_pairs)
    train, heldout = split_orderings(orderings_of(feedback), view.train_prompts)
    model = fit(base, encode_orderings(base, train, settings=settings), settings=settings)
    report = examine(model, encode_orderings(base, heldout, settings=settings))
    print(f"The reward model orders {report.accuracy:.2f} of {report.pairs} held-out pairs.", file=sys.stderr)
    return model.save(folder, report=report, feedback_ids=[])


def _judge(job: Job) -> Callable[[Path], tuple[float, float]]:
    """A function from an adapter's folder to its mean score and KL on held-out questions."""
    import torch

    from training.base import load_base
    from training.generation import Decoding, kl_per_reply, sample, speaking_as
    from training.mini.heldout import heldout_prompts
    from training.prompt import encode_prompt
    from training.reward_model import RewardModel

    torch.set_num_threads(job.threads)
    base = load_base(job.settings())
    reward_model, _ = RewardModel.load(base, Path(job.reward_model))
    asked = [
        encode_prompt(base.tokenizer, item.prompt_messages) for item in heldout_prompts(128, HELD_OUT_SEED)
    ]
    pad = base.tokenizer.pad_token_id
    decoding = Decoding(job.temperature, 1.0, job.reply_tokens, base.ends, pad, seed=0)

    def judge(folder: Path) -> tuple[float, float]:
        model = reward_model.model
        model.load_adapter(str(folder), adapter_name="candidate", is_trainable=False)
        with speaking_as(model, "candidate"):
            replies = sample(model, asked, decoding=decoding)
        apart = kl_per_reply(model, asked, replies, of="candidate", to=None, pad=pad)
        scores = reward_model.score(asked, replies)
        model.delete_adapter("candidate")
        cut = fmean(reply[-1] not in base.ends for reply in replies)
        return fmean(scores) / reward_model.spread - job.missing_eos_penalty * cut, fmean(apart)

    return judge


def _unpacked_mb(options: argparse.Namespace) -> float:
    """What unpacking a quantized base at load costs ours; nothing on a GPU, where it stays as it is stored."""
    from transformers import AutoModelForCausalLM

    from benchmarks.measuring import tensor_mb
    from training.base import load_base
    from training.model_files import find_model
    from training.quantization import quantization_config

    base = load_base(TrainingSettings(quantization=options.quantization))
    if options.quantization == "none" or base.device.type != "cpu":
        return 0.0
    folder, _ = find_model(base.name)
    stored = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=quantization_config(options.quantization, dtype=base.model.dtype),
        dtype=base.model.dtype,
        local_files_only=True,
    )
    return tensor_mb(base.model) - tensor_mb(stored)


def table(runs: Sequence[Run]) -> str:
    """The implementations as rows of Markdown, medians over the rounds with least and most."""
    columns = ["", "episodes/s", "episodes/CPU s", "peak MB", "growth MB", "models MB", "score", "KL"]
    columns += ["held-out score", "held-out KL"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for who in dict.fromkeys(run.who for run in runs):
        lines.append(_line(who, [run for run in runs if run.who == who]))
    return "\n".join(lines)


def _line(who: str, runs: Sequence[Run]) -> str:
    def shown(value: Callable[[Run], float], digits: int) -> str:
        values = [value(run) for run in runs]
        middle = f"{statistics.median(values):.{digits}f}"
        return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else middle

    figures: list[str] = [
        shown(lambda run: run.answer.episodes / run.answer.taken.seconds, 2),
        shown(lambda run: run.answer.episodes / run.answer.taken.cpu, 2),
        shown(lambda run: run.answer.taken.peak_mb, 0),
        shown(lambda run: run.answer.taken.growth_mb, 0),
        shown(lambda run: run.answer.model_mb, 1),
        shown(lambda run: run.answer.scores[-1], 2),
        shown(lambda run: run.answer.kl[-1], 2),
        shown(lambda run: run.score, 2),
        shown(lambda run: run.kl, 2),
    ]
    return f"| {who} | {' | '.join(figures)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ppo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Any = parser.add_argument
    add(
        "--trl", type=Path, help=f"folder with TRL 1.12.0 ({INSTALL.format('FOLDER')}); without it ours alone"
    )
    add("--rounds", type=int, default=3, help="rounds, each with a seed of its own")
    add("--seed", type=int, default=1, help="first seed")
    add("--episodes", type=int, default=384, help="replies sampled in a round")
    add("--rollout", type=int, default=64, help="replies sampled at a time")
    add("--batch", type=int, default=16, help="rows of a minibatch, one optimizer step")
    add("--epochs", type=int, default=4, help="passes over the replies sampled at a time")
    add("--tokens", type=int, default=64, help="most tokens in a reply")
    add("--prompts", type=int, default=512, help="different prompts")
    add(
        "--prompt-tokens",
        type=int,
        default=128,
        help="longest prompt; TRL pads all to the longest of a batch",
    )
    add("--learning-rate", type=float, default=TrainingSettings.model_fields["ppo_learning_rate"].default)
    add("--quantization", choices=("nf4", "int8", "none"), default="nf4")
    add("--threads", type=int, default=1, help="CPU threads of either")
    add("--reward-model", type=Path, help="a saved reward model; without it one is fitted")
    add("--rater", default="question", help="whose votes the reward model is fitted on")
    add("--votes", type=int, default=200, help="how many")
    add("--keep", type=Path, help="folder for jobs, answers and adapters, which is left in place")
    return parser


if __name__ == "__main__":
    sys.exit(main())
