"""Stands in for the trainer beside the scripted policy: same run, metrics, report, registry and promotion,
no model.

Run as a process by `studio.retraining`, as ``python scripted_trainer.py --run-id ID``. Its pace is SECONDS
for the whole run, so that a page can be watched while it goes on.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from pathlib import Path

from memory.database import open_database
from memory.ledger import Ledger
from memory.runs import Runs
from studio.policy.scripted import ScriptedPolicy
from training.gate import decide
from training.metrics import MetricsWriter
from training.registry import Manifest, Registry
from training.report import EvaluationReport, ReplyFigures, SampleReply
from training.settings import TrainingSettings

STEPS = 20


def figures(mean_tokens: float) -> ReplyFigures:
    return ReplyFigures(
        replies=48,
        mean_tokens=mean_tokens,
        fluency=-1.2,
        implausible=0.0,
        repetition=0.03,
        identical=0.0,
        distinct_2=0.6,
        empty=0.0,
        punctuation=0.0,
        truncated=0.02,
        garbled=0.0,
        degenerate=0.02,
    )


def a_report(served: str = "base", *, kl: float = 14.2, win: float = 0.71) -> EvaluationReport:
    sample = SampleReply(
        prompt="What is a <b>lighthouse</b> for?",
        candidate="It warns ships. Would you like to hear how?",
        served="It is a tower!!",
        base="It is a tower!",
        preferred=0.8,
    )
    return EvaluationReport(
        served_version=served,
        training_pairs=64,
        heldout_pairs=16,
        heldout_prompts=48,
        preference_accuracy=0.83,
        preference_accuracy_low=0.6,
        preference_accuracy_high=0.95,
        judge_accuracy=0.86,
        judge_accuracy_low=0.6,
        judge_accuracy_high=0.97,
        taste_accuracy=0.88,
        taste_accuracy_low=0.8,
        taste_accuracy_high=0.95,
        win_rate_served=win,
        win_rate_served_error=0.05,
        win_rate_base=win,
        win_rate_base_error=0.05,
        kl_base=kl,
        kl_served=kl,
        fluency_drop=0.1,
        forgotten=0.005,
        on_topic=0.9,
        on_topic_high=0.96,
        on_topic_served=0.95,
        candidate=figures(37.0),
        served=figures(27.0),
        base=figures(24.0),
        samples=(sample,),
    )


def save_adapter(folder: Path) -> Path:
    """The smallest adapter that the registry takes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensor = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}
    header = json.dumps({"base_model.layer.lora_A.weight": tensor}).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def train(run_id: str, settings: TrainingSettings, *, seconds: float) -> None:
    database = open_database(settings.resolved_database_url)
    runs, registry = Runs(database), Registry(settings.adapters_dir)
    run = runs.get(run_id)
    folder = Path(run.folder)
    print("Training without a model", flush=True)
    feedback = [f"comparison:{item.comparison.id}" for item in Ledger(database).comparisons() if item.chosen]
    with MetricsWriter(folder / "metrics.jsonl", clock=time.time) as metrics:
        for step in range(1, STEPS + 1):
            if runs.cancel_requested(run_id):
                runs.update(run_id, state="cancelled", message="Cancelled. What is served has not changed.")
                return
            share = 0.7 * step / STEPS
            left = seconds * (1 - share)
            values = {"loss": 0.7 / step, "rewards/margins": step / STEPS}
            metrics.write("train", step=step, total_steps=STEPS, progress=share, seconds_left=left, **values)
            runs.update(run_id, state="training", progress=share, message=f"Step {step} of {STEPS}")
            time.sleep(seconds / STEPS)
    report = a_report(run.parent_version)
    verdict = decide(report, settings)
    whole = {"evaluation": report.to_dict(), "verdict": verdict.to_dict(), "dropped": {}, "seconds": {}}
    (folder / "report.json").write_text(json.dumps(whole), encoding="utf-8")
    version = registry.reserve()
    manifest = Manifest(
        version=version,
        parent=run.parent_version,
        base_model="scripted",
        base_revision="",
        base_identity=ScriptedPolicy().identity,
        quantization="none",
        method=run.method,
        fingerprint=f"{int(version[1:]):08x}",
        canary_logprobs=[-1.0],
        base_canary_logprobs=[-2.0],
        code_version="0",
        created_at=time.time(),
        feedback_ids=feedback,
        report=whole,
    )
    registry.publish(version, save_adapter(folder / "candidate"), manifest)
    runs.promote(version, actor="gate", reason=verdict.summary)
    runs.update(run_id, state="published", progress=1.0, message=verdict.summary, version=version)
    database.close()


if __name__ == "__main__":
    train(
        sys.argv[sys.argv.index("--run-id") + 1],
        TrainingSettings(),
        seconds=float(os.environ.get("SECONDS", "4")),
    )
