"""The base model: one way of loading it, 4-bit on a CPU without its cost, and errors with a way out."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.tiny import save_tiny_base, tiny_model, tiny_tokenizer
from training.base import ModelUnavailable, find_model, identity_of, load_base, unpack_linears
from training.settings import REPOSITORY, TrainingSettings

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="checks what is done where there is no GPU")
MINI = REPOSITORY / "models" / "mini"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


def settings_for(model: Path | str, tmp_path: Path, **fields: Any) -> TrainingSettings:
    return TrainingSettings(model=str(model), data_dir=tmp_path, **fields)


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.arange(3, 40)[None]).logits
    return found


@on_cpu
def test_nf4_on_a_cpu_is_plain_linears_with_the_quantized_values(folder: Path, tmp_path: Path) -> None:
    base = load_base(settings_for(folder, tmp_path))
    plain = load_base(settings_for(folder, tmp_path, quantization="none"))
    linears = [module for module in base.model.modules() if isinstance(module, nn.Linear)]
    assert {type(module) for module in linears} == {nn.Linear}
    assert not hasattr(base.model.config, "quantization_config")
    assert base.quantization == "nf4" and plain.quantization == "none"
    name = "model.layers.0.mlp.up_proj.weight"
    quantized, original = (
        dict(base.model.named_parameters())[name],
        dict(plain.model.named_parameters())[name],
    )
    assert not torch.equal(quantized, original)
    # NF4 has 16 values for a block of 64 weights, so no block may hold more different ones.
    blocks = quantized.detach().reshape(-1, 64)
    assert max(len(block.unique()) for block in blocks) <= 16
    assert torch.equal(base.model.lm_head.weight, plain.model.lm_head.weight)
    assert torch.equal(base.model.get_input_embeddings().weight, plain.model.get_input_embeddings().weight)


@on_cpu
def test_unpacked_model_computes_what_bitsandbytes_computes(tmp_path: Path) -> None:
    """Against bitsandbytes' own fp32 path (the one it trains through). For inference it rounds everything to bf16 on
    some CPUs, which is why that path is only required to be near."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer, width=64, initializer_range=0.1).save_pretrained(tmp_path)
    packed = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    exact = logits_of(packed.train())
    unpacked = deepcopy(packed).eval()
    assert unpack_linears(unpacked, dtype=torch.float32) == 14
    ours, theirs = logits_of(unpacked), logits_of(packed.eval())
    assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()
    assert (ours - theirs).abs().max() < 0.05 * exact.abs().max()


def test_identity_follows_the_bytes_of_weights_and_tokenizer_alone(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert identity_of(copy) == identity_of(folder)
    (copy / "README.md").write_text("words")
    assert identity_of(copy) == identity_of(folder)
    for name in ("model.safetensors", "tokenizer.json"):
        changed = Path(shutil.copytree(folder, tmp_path / name))
        data = bytearray((changed / name).read_bytes())
        data[-2] ^= 1
        (changed / name).write_bytes(bytes(data))
        assert identity_of(changed) != identity_of(folder)
    assert len(identity_of(folder)) == 16


def test_identity_of_a_hub_download_is_that_of_the_same_folder(folder: Path, tmp_path: Path) -> None:
    from hashlib import sha256

    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    shutil.copytree(folder, snapshot)
    blobs.mkdir()
    weights = snapshot / "model.safetensors"
    blob = blobs / sha256(weights.read_bytes()).hexdigest()
    weights.rename(blob)
    weights.symlink_to(blob)
    assert identity_of(snapshot) == identity_of(folder)


def test_context_is_the_smaller_of_settings_and_model(folder: Path, tmp_path: Path) -> None:
    assert load_base(settings_for(folder, tmp_path)).context_tokens == 512
    assert load_base(settings_for(folder, tmp_path, context_tokens=256)).context_tokens == 256


def test_missing_folder_says_how_to_get_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"python -m training\.mini"):
        find_model(str(tmp_path / "nothing"))
    with pytest.raises(ModelUnavailable, match=r"config\.json is missing"):
        find_model(str(tmp_path))


def test_model_that_is_not_cached_offline_says_how_to_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelUnavailable, match=r"HF_HUB_OFFLINE is set.*hf download nobody/nothing"):
        find_model("nobody/nothing")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("GatedRepoError", "is gated. Ask for access"),
        ("RevisionNotFoundError", "has no revision 'v9'. Set THUMBPRINT_REVISION"),
        ("RepositoryNotFoundError", "does not exist on the Hub"),
    ],
)
def test_hub_refusals_name_the_way_out(monkeypatch: pytest.MonkeyPatch, error: str, words: str) -> None:
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*args: Any, **kwargs: Any) -> str:
        response = httpx.Response(403, request=httpx.Request("GET", "https://example.invalid"))
        raise getattr(errors, error)("no", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelUnavailable, match=words):
        find_model("some/model", revision="v9")


def test_folder_with_pickled_weights_only_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match="safetensors"):
        load_base(settings_for(copy, tmp_path))


@pytest.mark.skipif(not (MINI / "model.safetensors").is_file(), reason="models/mini has no weights yet")
def test_shipped_model_loads_and_ends_its_turns(tmp_path: Path) -> None:
    from memory.schema import Message
    from training.prompt import encode_prompt, end_of_turn_ids

    base = load_base(settings_for(MINI, tmp_path))
    ids = torch.tensor([encode_prompt(base.tokenizer, [Message("user", "Hello!")])])
    out = base.model.generate(ids, max_new_tokens=120, do_sample=False, pad_token_id=0)[
        0, ids.shape[1] :
    ].tolist()
    assert set(out) & end_of_turn_ids(base.tokenizer)
