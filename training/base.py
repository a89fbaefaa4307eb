"""The base model: loaded and quantized in one way for everybody, and named by a hash of what was loaded.

Trainer and server both come here, so that they compute the same function. This module knows no adapters, no prompts
and no settings beyond those that say which model and where. Weights are read from safetensors only; no code that
comes with a model is ever run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from training.settings import TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WANTED_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt")


class ModelUnavailable(OSError):
    """The base model cannot be had: not there, not reachable, gated. The message says which and the way out."""


@dataclass(frozen=True)
class BaseModel:
    """A loaded base. `identity` is 16 hex digits over the weights' and the tokenizer's bytes.

    `name` is what the settings called it, `revision` the Hub commit (empty for a folder), `quantization` ``nf4`` or
    ``none``, `context_tokens` the most that a prompt and its reply may take together. The model is in eval mode.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str
    quantization: str
    device: torch.device
    context_tokens: int
    identity: str


def load_base(settings: TrainingSettings) -> BaseModel:
    """Load the model that `settings` name, onto a GPU if there is one.

    fp32 on a CPU, bf16 compute on a GPU. With ``nf4`` on a CPU the linear layers hold the dequantized 4-bit values
    (see `unpack_linears`). Raises `ModelUnavailable`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _load_quietly()
    folder, revision = find_model(settings.model, revision=settings.revision)
    device = _choose_device(settings.quantization)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    quantization_config = _nf4(dtype) if settings.quantization == "nf4" else None
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=quantization_config,
            device_map={"": device},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"The model in {folder} cannot be loaded: {error} Expected a causal language model with safetensors "
            "weights, config.json and a tokenizer; set THUMBPRINT_MODEL to such a folder or Hub name."
        ) from error
    if settings.quantization == "nf4" and device.type == "cpu":
        unpack_linears(model, dtype=dtype)
    model.eval()
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        name=settings.model,
        revision=revision,
        quantization=settings.quantization,
        device=device,
        context_tokens=_context_of(model, settings.context_tokens),
        identity=identity_of(folder),
    )


def _load_quietly() -> None:
    """Show progress to a terminal only, and no word on 4-bit CPU kernels: the weights are unpacked instead."""
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


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


def unpack_linears(model: nn.Module, *, dtype: torch.dtype) -> int:
    """Replace every bitsandbytes 4-bit linear layer by a plain one that holds the dequantized weight; count them.

    The function computed stays the same, since bitsandbytes multiplies by these very values after unpacking them at
    every call (258 against 235 tokens a second, one row of mini on one core). Memory grows to that of an unquantized
    model.
    """
    import bitsandbytes as bnb

    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, bnb.nn.Linear4bit):
                setattr(parent, name, _unpacked(child, dtype))
                replaced += 1
    # From here on the model is an ordinary one: trainers must not take it for a 4-bit one.
    for attribute in ("is_loaded_in_4bit", "is_quantized"):
        if getattr(model, attribute, False):
            setattr(model, attribute, False)
    for attribute in ("hf_quantizer", "quantization_method"):
        if hasattr(model, attribute):
            delattr(model, attribute)
    config: Any = getattr(model, "config", None)
    if config is not None and hasattr(config, "quantization_config"):
        del config.quantization_config
    return replaced


def _unpacked(layer: Any, dtype: torch.dtype) -> nn.Linear:
    import bitsandbytes.functional as bnb_functional

    weight: Any = bnb_functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    plain = nn.Linear(
        layer.in_features, layer.out_features, bias=layer.bias is not None, device=weight.device, dtype=dtype
    )
    with torch.no_grad():
        plain.weight.copy_(weight)
        if layer.bias is not None:
            plain.bias.copy_(layer.bias)
    return plain.requires_grad_(False)


def _nf4(dtype: torch.dtype) -> Any:
    """NormalFloat 4 with double quantization (Dettmers et al. 2023, section 3)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _choose_device(quantization: str) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    # bitsandbytes has no 4-bit kernels for Apple's GPUs.
    if quantization == "none" and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _context_of(model: Any, wanted: int) -> int:
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(wanted, int(own)) if own else wanted


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
