"""Is this folder a plain LoRA adapter, whole, unchanged and free of code? Reads bytes and JSON, never weights' values.

Every check raises `AdapterRefused` with a sentence that names the file and the reason. It knows nothing of versions'
order, manifests or models; `training.registry` decides which folders are asked about.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".msgpack"}
_SAFE_SUFFIXES = {".safetensors", ".json", ".md", ".txt"}
_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_MOST_HEADER_BYTES = 100_000_000
_MERELY_LORA: dict[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "layer_replication": (None, []),
    "megatron_config": (None,),
    "alora_invocation_tokens": (None,),
    "target_parameters": (None, []),
}


class AdapterRefused(ValueError):
    """An adapter that must not be served, with the reason and the way out."""


def check_files(path: Path, version: str, *, hashes: dict[str, str], beside: set[str]) -> None:
    """Check every entry of the folder `path` against `hashes`, and the formats of the weights and the config.

    `beside` names the files that have no hash of their own.
    """
    for name in hashes:
        if Path(name).name != name or name.startswith("."):
            raise AdapterRefused(
                f"Adapter {version}: the manifest lists {name!r}, which is not a plain file name."
            )
    for entry in sorted(path.iterdir()):
        _check_entry(entry, version, known=hashes.keys() | beside)
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, *hashes):
        if name not in hashes or not (path / name).is_file():
            raise AdapterRefused(
                f"Adapter {version}: {name} is missing. Publish or download the adapter again."
            )
    for name, expected in hashes.items():
        if (found := sha256_of(path / name)) != expected:
            raise AdapterRefused(
                f"Adapter {version}: {name} is damaged or was changed: its SHA-256 begins {found[:12]}, the manifest "
                f"says {expected[:12]}. Publish or download the adapter again."
            )
    check_weights(path / ADAPTER_WEIGHTS, version)
    check_config(path / ADAPTER_CONFIG, version)


def _check_entry(entry: Path, version: str, *, known: set[str]) -> None:
    if entry.is_symlink() or not entry.is_file():
        raise AdapterRefused(
            f"Adapter {version}: {entry.name} is a link or a folder; only plain files are served."
        )
    with open(entry, "rb") as file:
        first = file.read(4)
    if entry.suffix.lower() in _PICKLE_SUFFIXES or _looks_pickled(first):
        raise AdapterRefused(
            f"Adapter {version}: {entry.name} is a pickle or an archive, which can run code when it is loaded. "
            "Save the adapter as safetensors."
        )
    if entry.name not in known:
        raise AdapterRefused(f"Adapter {version}: {entry.name} is not listed in the manifest. Remove it.")
    if entry.suffix.lower() not in _SAFE_SUFFIXES and entry.name != "STABLE":
        raise AdapterRefused(
            f"Adapter {version}: {entry.name} is of a kind that adapters do not need. Remove it."
        )


def _looks_pickled(first: bytes) -> bool:
    """Pickle protocol 2 and later, zip (torch.save), gzip, xz, bzip2, or a tar's and old torch's first bytes."""
    pickled = len(first) >= 2 and first[0] == 0x80 and 2 <= first[1] <= 5
    return pickled or first.startswith((b"PK\x03\x04", b"\x1f\x8b", b"\xfd7zX", b"BZh"))


def check_weights(path: Path, version: str) -> None:
    """Check a safetensors header: its JSON, every tensor's name, type and place, and that the file ends where it says.

    Format: 8 bytes little-endian header length, the header, then the tensors' bytes without gaps.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(size - 8, _MOST_HEADER_BYTES):
            raise AdapterRefused(f"Adapter {version}: {path.name} is not a safetensors file, or is cut off.")
        header_bytes = file.read(length)
    try:
        header = read_json_object(header_bytes.decode("utf-8"), path.name)
        header.pop("__metadata__", None)
        spans = sorted(_span(name, entry) for name, entry in header.items())
    except (ValueError, TypeError, KeyError) as error:
        raise AdapterRefused(
            f"Adapter {version}: the header of {path.name} is malformed ({error})."
        ) from error
    end = 0
    for begin, stop in spans:
        if begin != end:
            raise AdapterRefused(f"Adapter {version}: the tensors in {path.name} overlap or leave gaps.")
        end = stop
    if not spans or end != size - 8 - length:
        raise AdapterRefused(
            f"Adapter {version}: {path.name} holds {size - 8 - length} bytes of tensors, its header announces {end}. "
            "It is cut off or was changed."
        )


def _span(name: str, entry: dict[str, Any]) -> tuple[int, int]:
    if ".lora_" not in f".{name}":
        raise ValueError(f"tensor {name[:80]!r} is not a LoRA matrix")
    begin, end = entry["data_offsets"]
    count = 1
    for length in entry["shape"]:
        if not isinstance(length, int) or length < 0:
            raise ValueError(f"tensor {name[:80]!r} has shape {entry['shape']!r}")
        count *= length
    if end - begin != count * _DTYPE_BYTES[entry["dtype"]]:
        raise ValueError(f"tensor {name[:80]!r} takes {end - begin} bytes, which its shape does not")
    return begin, end


def check_config(path: Path, version: str) -> None:
    """Check that adapter_config.json describes a plain LoRA on a causal language model, with nothing beside it.

    Anything that changes the base itself (biases, saved modules, DoRA) cannot share a batch with other adapters.
    """
    try:
        config = read_json_object(path.read_text(encoding="utf-8"), path.name)
    except ValueError as error:
        raise AdapterRefused(f"Adapter {version}: {error}") from error
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterRefused(f"Adapter {version}: its peft_type is {kind!r}; only LORA can be served.")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise AdapterRefused(f"Adapter {version}: its task is {config['task_type']!r}; expected CAUSAL_LM.")
    rank = config.get("r")
    if not isinstance(rank, int) or not 1 <= rank <= 1024:
        raise AdapterRefused(
            f"Adapter {version}: its rank r is {rank!r}; expected a whole number from 1 to 1024."
        )
    for key, accepted in _MERELY_LORA.items():
        if config.get(key) not in accepted:
            raise AdapterRefused(
                f"Adapter {version}: {key} is {config[key]!r}, which cannot be served beside other adapters. "
                f"Train it with {key}={accepted[-1]!r}."
            )


def read_json_object(text: str, name: str) -> dict[str, Any]:
    """Parse one JSON object; NaN, infinities and repeated keys are refused. Raises `ValueError`."""

    def no_constant(value: str) -> float:
        raise ValueError(f"{name} holds {value}, which is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError(f"{name} repeats a key")
        return found

    try:
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
