"""From a trained candidate to a version on the shelf: what the manifest says, and in which order things
happen.

Saves the candidate's LoRA tensors and nothing else, takes its fingerprint, and hands both to the registry. It
neither decides whether to publish nor what is served; the promotion is one more step, taken by the iteration.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.base import BaseModel
from training.fingerprint import canary_logprobs, check, digest, tolerance_for
from training.gate import Verdict
from training.method import CANDIDATE
from training.registry import AdapterVersion, Manifest, Registry
from training.report import EvaluationReport
from training.settings import REPOSITORY, TrainingSettings

_PRIVATE = {"data_dir", "database_url", "dataset", "reward_model", "run_id", "requested_by"}
"""Settings that say where this machine keeps things, or hold a password: no business of whoever gets the
adapter.
"""
_PASSING = {"project", "promote", "report_to", "resume", "save_steps"}
"""Settings of the script that ran, which have no part in what came of it."""


@dataclass(frozen=True)
class Lineage:
    """Where the candidate comes from."""

    parent: str
    feedback_ids: Sequence[str]
    report: EvaluationReport
    verdict: Verdict
    created_at: float


def save_candidate(model: Any, folder: Path) -> Path:
    """Write the candidate's tensors and config to `folder`, in safetensors, and return it."""
    model.save_pretrained(str(folder), selected_adapters=[CANDIDATE], save_embedding_layers=False)
    return folder


def publish(
    registry: Registry,
    base: BaseModel,
    model: Any,
    folder: Path,
    *,
    lineage: Lineage,
    settings: TrainingSettings,
) -> AdapterVersion:
    """Reserve a version, write its manifest and put the adapter saved in `folder` on the shelf.

    The report goes along without its sample replies: people's words do not travel with an adapter. Raises
    `FingerprintMismatch` for a candidate that computes what the base computes, `AdapterRefused` and `OSError`
    as `Registry.publish` does.
    """
    numbers = canary_logprobs(model, base.tokenizer, adapter=CANDIDATE)
    plain = canary_logprobs(model, base.tokenizer, adapter=None)
    check(numbers, numbers, base=plain, tolerance=tolerance_for(model))
    version = registry.reserve()
    manifest = Manifest(
        version=version,
        parent=lineage.parent,
        base_model=base.name,
        base_revision=base.revision,
        base_identity=base.identity,
        quantization=base.quantization,
        method=settings.method,
        settings=settings.model_dump(mode="json", exclude=_PRIVATE | _PASSING),
        feedback_ids=sorted(set(lineage.feedback_ids)),
        report={
            "evaluation": replace(lineage.report, samples=()).to_dict(),
            "verdict": lineage.verdict.to_dict(),
        },
        fingerprint=digest(numbers),
        canary_logprobs=numbers,
        base_canary_logprobs=plain,
        code_version=code_version(),
        created_at=lineage.created_at,
    )
    return registry.publish(version, folder, manifest)


def code_version() -> str:
    """The release, with 8 hex digits over this package's sources to tell two states of it apart."""
    package = Path(__file__).resolve().parent
    sources = hashlib.sha256()
    for file in sorted(package.glob("*.py")):
        sources.update(file.name.encode() + file.read_bytes())
    project = REPOSITORY / "pyproject.toml"
    release = "unknown"
    if project.is_file():
        release = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    return f"{release}+{sources.hexdigest()[:8]}"
