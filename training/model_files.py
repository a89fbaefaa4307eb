"""Where a base model's files are, fetched from the Hub if need be, and the name that their bytes give it.

It knows folders, the Hub and its refusals; it reads no weights, loads no model and knows no settings.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_WANTED_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt")


class ModelUnavailable(OSError):
    """The base model cannot be had: not there, not reachable, gated, or of a kind that cannot be chatted with here.
    The message says which and the way out."""


def find_model(name: str, *, revision: str = "") -> tuple[Path, str]:
    """The folder that holds model `name`, and the Hub commit it is from (empty for a local folder).

    `name` is a folder, or a Hub name whose files are fetched unless they are in the cache. Raises `ModelUnavailable`.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder, ""
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ModelUnavailable(
            f"There is no model in {folder}: config.json is missing. Set THUMBPRINT_MODEL to a folder that holds one "
            "or to a Hub name such as Qwen/Qwen2.5-0.5B-Instruct; `python -m training.mini` makes the small one."
        )
    snapshot = _fetch(name, revision=revision)
    return snapshot, snapshot.name


def identity_of(folder: Path) -> str:
    """16 hex digits that change with any byte of the weights or the tokenizer in `folder`."""
    weights = sorted(folder.glob("*.safetensors"))
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    whole = hashlib.sha256()
    for file in (*weights, *tokenizer):
        whole.update(f"{file.name} {_file_hash(file)}\n".encode())
    return whole.hexdigest()[:16]


def _file_hash(file: Path) -> str:
    """Hex SHA-256 of a file. The Hub's cache names large files by it, which spares reading many gigabytes."""
    target = file.resolve()
    if target.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", target.name):
        return target.name
    with open(target, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fetch(name: str, *, revision: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=_WANTED_FILES))
    except errors.GatedRepoError as error:
        reason, way_out = "is gated", "Ask for access on its page, then run `hf auth login` or set HF_TOKEN."
        cause: Exception = error
    except errors.RevisionNotFoundError as error:
        reason, way_out = (
            f"has no revision {revision!r}",
            "Set THUMBPRINT_REVISION to a branch, tag or commit of it.",
        )
        cause = error
    except errors.RepositoryNotFoundError as error:
        reason = "does not exist on the Hub, or is private"
        way_out = "Check THUMBPRINT_MODEL; for a private model run `hf auth login` or set HF_TOKEN."
        cause = error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0") else ""
        reason = f"is not on this machine and the Hub cannot be reached{offline}"
        way_out = (
            f"Connect once and run `hf download {name}`, or use the model that ships: THUMBPRINT_PRESET=mini."
        )
        cause = error
    raise ModelUnavailable(f"Model {name} {reason}. {way_out}") from cause
