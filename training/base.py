"""The base model: loaded and quantized in one way for everybody, and named by a hash of what was loaded.

Trainer and server both come here, so that they compute the same function. This module knows no adapters, no engine
and no settings beyond those that say which model and where. Weights are read from safetensors only; no code that
comes with a model is ever run.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import TemplateError

from memory.schema import Message
from training.model_files import ModelUnavailable, find_model, identity_of
from training.processes import ALONE, Processes
from training.prompt import PromptError, encode_prompt, end_of_turn_ids
from training.quantization import quantization_config, unpack_linears
from training.settings import TrainingSettings
from training.sharding import prepare_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SERVED_LAYERS = {"full_attention", "sliding_attention"}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_LENGTHENED = {"longrope", "dynamic"}
"""Position codes that change for the whole pass once one row of it is longer than the model was first trained for."""


@dataclass(frozen=True)
class BaseModel:
    """A loaded base. `identity` is 16 hex digits over the weights' and the tokenizer's bytes.

    `name` is what the settings called it, `revision` the Hub commit (empty for a folder), `quantization` ``nf4``,
    ``int8`` or ``none``, `context_tokens` the most that a prompt and its reply may take together, `processes` all that
    hold this same base and divide its work. The model is in eval mode.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str
    quantization: str
    device: torch.device
    context_tokens: int
    identity: str
    processes: Processes = ALONE

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a reply: the template's end of turn, and all that the tokenizer and the model's own
        generation settings name."""
        named: Any = getattr(self.model.generation_config, "eos_token_id", None)
        listed = named if isinstance(named, list) else [] if named is None else [named]
        return frozenset(end_of_turn_ids(self.tokenizer)) | frozenset(int(token) for token in listed)


def load_base(settings: TrainingSettings, processes: Processes = ALONE) -> BaseModel:
    """Load the model that `settings` name, onto a GPU if there is one; each of `processes` onto its own.

    fp32 on a CPU, bf16 compute on a GPU. Quantized linear layers on a CPU hold the dequantized values (see
    `training.quantization.unpack_linears`). Raises `ModelUnavailable`.
    """
    _load_quietly()
    folder, revision = find_model(settings.model, revision=settings.revision)
    # What is quick to find out comes first: nobody should wait for gigabytes to learn that a template is missing.
    tokenizer = load_tokenizer(folder, template=settings.chat_template)
    config = load_config(folder)
    context_tokens = context_of(config, settings)
    device = _choose_device(settings.quantization)
    if processes.shards and settings.quantization == "int8" and device.type != "cpu":
        raise ModelUnavailable(
            "An int8 base cannot be divided among processes. Set quantization to nf4 or none, or launch with ddp.yaml."
        )
    model = _load_model(folder, settings, device, shards=processes.shards)
    if processes.shards:
        prepare_layers(model)
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        name=settings.model,
        revision=revision,
        quantization=settings.quantization,
        device=device,
        context_tokens=context_tokens,
        identity=identity_of(folder),
        processes=processes,
    )


def _load_quietly() -> None:
    """Show progress to a terminal only, and no word on 4-bit CPU kernels: the weights are unpacked instead."""
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def load_tokenizer(folder: Path, *, template: str) -> Any:
    """The tokenizer, with a chat template that works: the model's own, or the one in the file `template`."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _reading_errors() as error:
        raise _unloadable(folder, error) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelUnavailable(
            f"The tokenizer in {folder} is a {type(tokenizer).__name__}, which cannot write replies piece by piece. "
            "Expected one with a tokenizer.json; choose a model that has it."
        )
    if template:
        try:
            tokenizer.chat_template = Path(template).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelUnavailable(
                f"The chat template {template} cannot be read ({error}). Set THUMBPRINT_CHAT_TEMPLATE to a file with a "
                "Jinja template, or leave it out to use the model's own."
            ) from error
    try:
        encode_prompt(tokenizer, [Message("user", "Hello")])
        end_of_turn_ids(tokenizer)
    except (PromptError, TemplateError) as error:
        raise ModelUnavailable(
            f"The model in {folder} cannot be chatted with. {str(error).rstrip('.')}. Or name a file that holds a chat "
            "template for it with THUMBPRINT_CHAT_TEMPLATE."
        ) from error
    return tokenizer


def load_config(folder: Path) -> Any:
    """The model's configuration, if its layers are of a kind that the chat's cache can hold."""
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _reading_errors() as error:
        raise _unloadable(folder, error) from error
    text = config.get_text_config()
    odd = sorted(set(getattr(text, "layer_types", None) or ()) - _SERVED_LAYERS)
    if getattr(text, "num_kv_shared_layers", 0):
        odd.append("layers that share keys and values")
    if any(getattr(text, name, 0) for name in _EXPERTS):
        odd.append("a mixture of experts")
    if config.is_encoder_decoder:
        odd.append("an encoder")
    if odd:
        raise ModelUnavailable(
            f"The model in {folder} ({config.model_type}) has {', '.join(odd)}; expected a decoder whose layers all "
            "use full or sliding attention, one set of weights each: only these can be served under several adapters "
            "at once. Choose another model."
        )
    return config


def _load_model(folder: Path, settings: TrainingSettings, device: torch.device, *, shards: bool) -> Any:
    """The model in eval mode. Weights that are missing are an error: they would be made up at random."""
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=quantization_config(settings.quantization, dtype=dtype, sharded=shards),
            device_map={"": device},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelUnavailable(
            f"The model in {folder} does not fit into this machine's memory as {settings.quantization}. Choose a "
            "smaller one, or THUMBPRINT_QUANTIZATION=nf4 on a GPU."
        ) from error
    except _reading_errors() as error:
        raise _unloadable(folder, error) from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelUnavailable(
            f"The weights in {folder} are incomplete: {len(missing)} are missing, {missing[0]} among them. Fetch the "
            "model again."
        )
    if getattr(model, "_is_stateful", False):
        raise ModelUnavailable(
            f"The model in {folder} ({model.config.model_type}) keeps a running state instead of keys and values, "
            "which the chat cannot serve. Choose another model."
        )
    if settings.quantization != "none" and device.type == "cpu":
        unpack_linears(model, dtype=dtype)
    model.eval()
    return model


def _reading_errors() -> tuple[type[Exception], ...]:
    """What transformers raises for files that are missing, damaged or not for it; its readers have no error in
    common."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    plain = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError)
    return (*plain, SafetensorError, StrictDataclassError)


def _unloadable(folder: Path, error: Exception) -> ModelUnavailable:
    reason = " ".join(str(error).strip().partition("\n\n")[0].split()) or type(error).__name__
    if "trust_remote_code" in reason:
        return ModelUnavailable(
            f"The model in {folder} needs code of its own, and code that comes with a model is never run here. Choose "
            "one whose architecture transformers knows."
        )
    return ModelUnavailable(
        f"The model in {folder} cannot be loaded: {reason.rstrip('.')}. Expected a causal language model with "
        "safetensors weights, config.json and tokenizer.json; set THUMBPRINT_MODEL to such a folder or Hub name."
    )


def _choose_device(quantization: str) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    # bitsandbytes has no kernels for Apple's GPUs.
    if quantization == "none" and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def context_of(config: Any, settings: TrainingSettings) -> int:
    """The smaller of the settings' and the model's own context, in tokens.

    Where a longer row would change the positions' code for all rows of a pass (Phi-3 and Phi-4-mini beyond 4,096
    tokens), the context ends before. Raises `ModelUnavailable` if no prompt has room beside a reply.
    """
    text = config.get_text_config()
    limits = [settings.context_tokens, getattr(text, "max_position_embeddings", None)]
    named: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    for rope in [named, *(value for value in named.values() if isinstance(value, dict))]:
        if rope.get("rope_type") in _LENGTHENED:
            limits.append(rope.get("original_max_position_embeddings"))
    context = min(int(limit) for limit in limits if limit)
    if context <= settings.max_new_tokens:
        raise ModelUnavailable(
            f"The model takes {context} tokens at most, prompt and reply together, and max_new_tokens is "
            f"{settings.max_new_tokens}; a reply must leave room for its prompt. Lower THUMBPRINT_MAX_NEW_TOKENS."
        )
    return context
