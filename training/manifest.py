"""What is written down about an adapter: its origin, what it was trained on and what it computes.

A value that goes to JSON and back unchanged, and refuses anything else. It knows no folders and checks no files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from training.adapter_files import read_json_object


@dataclass(frozen=True)
class Manifest:
    """Where an adapter comes from and what it computes. `hashes` maps file names to SHA-256; times are Unix seconds.

    `canary_logprobs` are the candidate's log-probabilities of the canaries, `base_canary_logprobs` the base's, and
    `fingerprint` the digest of the former (`training.fingerprint`). `parent` is the version training started from.
    """

    version: str
    parent: str
    base_model: str
    base_revision: str
    base_identity: str
    quantization: str
    method: str
    fingerprint: str
    canary_logprobs: list[float]
    base_canary_logprobs: list[float]
    code_version: str
    created_at: float
    settings: dict[str, Any] = field(default_factory=dict)
    feedback_ids: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Stable text: sorted keys, no NaN. Raises `ValueError` where a value has no JSON form."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises `ValueError` naming the field that is missing, unknown or of the wrong type."""
        found = read_json_object(text, "manifest.json")
        known = {f.name for f in fields(cls)}
        if missing := sorted(known - found.keys()):
            raise ValueError(f"manifest.json lacks {', '.join(missing)}.")
        if unknown := sorted(found.keys() - known):
            raise ValueError(
                f"manifest.json has unknown fields {', '.join(unknown)}; it is from another release."
            )
        for name, value in found.items():
            _check_type(name, value)
        return cls(**found)


def _check_type(name: str, value: Any) -> None:
    lists: dict[str, type | tuple[type, ...]] = {
        "feedback_ids": str,
        "canary_logprobs": (int, float),
        "base_canary_logprobs": (int, float),
    }
    if name in lists:
        good = isinstance(value, list) and all(isinstance(item, lists[name]) for item in value)
    elif name in {"settings", "report", "hashes"}:
        good = isinstance(value, dict) and (
            name != "hashes" or all(isinstance(v, str) for v in value.values())
        )
    elif name == "created_at":
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        good = isinstance(value, str)
    if not good:
        raise ValueError(f"manifest.json: {name} is {str(value)[:80]!r}, which is of the wrong type.")
