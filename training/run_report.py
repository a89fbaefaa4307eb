"""What a run leaves for a reader: ``report.md`` in its folder, with its curves as SVG files beside it.

Made of what the run has written anyway, ``metrics.jsonl`` and ``report.json``, and so of every method alike. It
measures nothing and decides nothing, and a run that ended early gets the part that there is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memory.schema import Run
from training.curves import Points, curves_svg
from training.execution import METRICS
from training.metrics import read_metrics
from training.report import EvaluationReport, meanings
from training.resuming import beginning_of

_PLOTS: Mapping[str, Mapping[str, str]] = {
    "Loss": {
        "loss": "loss",
        "loss/policy_avg": "policy",
        "loss/value_avg": "critic",
        "reward_model/loss": "reward model",
    },
    "Rewards": {"rewards/chosen": "chosen", "rewards/rejected": "rejected", "rewards/margins": "margin"},
    "Share ordered as people did": {"rewards/accuracies": "policy", "reward_model/accuracy": "reward model"},
    "Score of the sampled replies": {"objective/scores": "score", "reward": "reward"},
    "Divergence from the reference (nats a reply)": {"objective/kl": "KL"},
    "Entropy (nats a token)": {"entropy": "entropy", "policy/entropy_avg": "policy"},
    "Gradient norm": {"grad_norm": "norm"},
}
"""The pictures, each with the metrics in it and what they are called there."""


def write_report(
    folder: Path, run: Run, *, settings: Mapping[str, Any], notes: Sequence[str], extra: str = ""
) -> Path:
    """Write ``report.md`` and its pictures into the run's `folder`, and return its path.

    `settings` are those that differ from the defaults, `notes` what there is to say of the data, `extra` more Markdown.
    """
    metrics = metrics_of(folder)
    pictures = draw_curves(folder, metrics)
    parts = [
        f"# {run.method}: {run.state}{f' as {run.version}' if run.version else ''}",
        run.message,
        _facts(run, metrics),
        section("Data", [f"- {note}" for note in notes]),
        section("Training", [f"![{title}]({name})" for title, name in pictures.items()], apart=True),
        extra,
        *_evaluation(folder),
        section("Settings that differ from the defaults", settings_table(settings)),
    ]
    return write_whole(folder / "report.md", "\n\n".join(part for part in parts if part) + "\n")


def write_whole(path: Path, text: str) -> Path:
    """Put `text` at `path`, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
    return path


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The run's metrics lines; in front of them, where it resumed another run, that run's up to where it went on."""
    lines = read_metrics(folder / METRICS)
    beginning = beginning_of(folder)
    if beginning is None or not beginning.resumed:
        return lines
    first = min(
        (line["step"] for line in lines if line["phase"] == "train" and line["step"]), default=float("inf")
    )
    before = metrics_of(Path(beginning.resumed))
    return [line for line in before if line["phase"] == "train" and line["step"] < first] + lines


def draw_curves(folder: Path, metrics: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Draw what there are numbers for; the file of each picture by its title."""
    drawn: dict[str, str] = {}
    for title, names in _PLOTS.items():
        curves = {called: _points(metrics, key) for key, called in names.items()}
        if picture := curves_svg({name: points for name, points in curves.items() if points}, title=title):
            name = f"{title.split(' (')[0].lower().replace(' ', '_')}.svg"
            (folder / name).write_text(picture, encoding="utf-8")
            drawn[title] = name
    return drawn


def _points(metrics: Sequence[Mapping[str, Any]], key: str) -> Points:
    """The values of `key` by step; of a step that was taken again after a resumption, the later one."""
    by_step = {
        float(line["step"]): float(line[key])
        for line in metrics
        if line["phase"] == "train" and isinstance(line.get(key), int | float)
    }
    return sorted(by_step.items())


def _facts(run: Run, metrics: Sequence[Mapping[str, Any]]) -> str:
    began = datetime.fromtimestamp(run.created_at, UTC)
    seconds = (run.ended_at or run.heartbeat_at) - run.created_at
    steps = max((line["step"] for line in metrics), default=0)
    return f"Run `{run.id}`, {began:%Y-%m-%d %H:%M} UTC, {seconds:.0f} s, {steps} steps. Parent: {run.parent_version}."


def _evaluation(folder: Path) -> list[str]:
    path = folder / "report.json"
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    report = EvaluationReport.from_dict(found["evaluation"])
    checks = [
        f"| {'yes' if check['passed'] else '**no**'} | {check['name'].replace('_', ' ')} | {_cell(check['sentence'])} |"
        for check in found["verdict"]["checks"]
    ]
    figures = [
        f"| {name.replace('_', ' ')} | {number(getattr(report, name))} | {_cell(meaning)} |"
        for name, meaning in meanings(EvaluationReport).items()
        if isinstance(getattr(report, name), int | float)
    ]
    samples = [
        f"> {_quoted(sample.prompt)}\n\n- candidate: {_cell(sample.candidate)}\n- {report.served_version}: "
        f"{_cell(sample.served)}"
        for sample in report.samples
    ]
    return [
        section("The gate", ["| passed | check | why |", "|---|---|---|", *checks]),
        section("What was measured", ["| figure | value | meaning |", "|---|---|---|", *figures]),
        section("Replies to prompts that were kept aside", samples, apart=True),
    ]


def settings_table(settings: Mapping[str, Any]) -> list[str]:
    rows = [f"| {name} | `{value}` |" for name, value in sorted(settings.items())]
    return ["| setting | value |", "|---|---|", *rows] if rows else []


def section(title: str, lines: Sequence[str], *, apart: bool = False) -> str:
    """A heading and its lines; nothing without lines."""
    return f"## {title}\n\n" + ("\n\n" if apart else "\n").join(lines) if lines else ""


def number(value: float) -> str:
    return f"{value:.4g}"


def _cell(text: str) -> str:
    """`text` on one line, for a table or a list."""
    return " ".join(text.split()).replace("|", "\\|")


def _quoted(text: str) -> str:
    return text.strip().replace("\n", "\n> ")
