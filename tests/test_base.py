"""The base model: one way of loading it, 4-bit on a CPU without its cost, and errors with a way out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.tiny import save_tiny_base, tiny_model, tiny_tokenizer
from training.base import load_base
from training.model_files import ModelUnavailable, find_model, identity_of
from training.quantization import quantization_config, unpack_linears
from training.settings import REPOSITORY, Quantization, TrainingSettings

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


def packed_base(folder: Path, quantization: Quantization) -> Any:
    """A tiny model with biases as bitsandbytes itself holds it."""
    from transformers import AutoModelForCausalLM

    model = tiny_model(tiny_tokenizer(), width=64, initializer_range=0.1, attention_bias=True)
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=quantization_config(quantization, dtype=torch.float32),
    )


@on_cpu
def test_unpacked_model_computes_what_bitsandbytes_computes(tmp_path: Path) -> None:
    """Against bitsandbytes' own fp32 path (the one it trains through). For inference it rounds everything to bf16 on
    some CPUs, which is why that path is only required to be near."""
    packed = packed_base(tmp_path, "nf4")
    exact = logits_of(packed.train())
    unpacked = deepcopy(packed).eval()
    assert unpack_linears(unpacked, dtype=torch.float32) == 14
    ours, theirs = logits_of(unpacked), logits_of(packed.eval())
    assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()
    assert (ours - theirs).abs().max() < 0.05 * exact.abs().max()


@on_cpu
def test_unpacked_8_bit_model_computes_what_bitsandbytes_trains_through(tmp_path: Path) -> None:
    """And so does one that has been used before. Outside training, bitsandbytes rounds the inputs as well, which is
    near by but another function: see the next test for why it is not the one that is served."""
    packed = packed_base(tmp_path, "int8")
    unpacked = deepcopy(packed).eval()
    assert unpack_linears(unpacked, dtype=torch.float32) == 14
    ours = logits_of(unpacked)
    assert (ours - logits_of(packed.eval())).abs().max() < 0.1 * ours.abs().max()
    exact = logits_of(packed.train())
    assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()
    used = deepcopy(packed).eval()
    assert unpack_linears(used, dtype=torch.float32) == 14
    assert torch.equal(logits_of(used), ours)
    assert not any(
        getattr(unpacked, name, False)
        for name in ("is_loaded_in_8bit", "is_quantized", "quantization_method")
    )


@on_cpu
def test_8_bit_row_does_not_depend_on_who_else_is_in_the_batch(tmp_path: Path) -> None:
    packed = packed_base(tmp_path, "int8").eval()
    row, loud = (
        torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0)),
        torch.full((1, 1, 64), 30.0),
    )

    def change(model: Any) -> float:
        layer = model.model.layers[0].mlp.up_proj
        with torch.inference_mode():
            return float((layer(row) - layer(torch.cat([row, loud]))[:1]).abs().max())

    assert change(packed) > 1e-3
    unpack_linears(packed, dtype=torch.float32)
    assert change(packed) < 1e-5


@on_cpu
def test_int8_on_a_cpu_is_plain_linears_with_255_levels_a_row(folder: Path, tmp_path: Path) -> None:
    base = load_base(settings_for(folder, tmp_path, quantization="int8"))
    plain = load_base(settings_for(folder, tmp_path, quantization="none"))
    assert base.quantization == "int8"
    assert {type(module) for module in base.model.modules() if isinstance(module, nn.Linear)} == {nn.Linear}
    name = "model.layers.0.mlp.up_proj.weight"
    rounded, original = (dict(b.model.named_parameters())[name].detach() for b in (base, plain))
    step = original.abs().amax(-1, keepdim=True) / 127
    assert not torch.equal(rounded, original)
    # Half a step, and what bitsandbytes loses on the way there: it quantizes from fp16.
    assert ((rounded - original).abs() <= 0.6 * step).all()
    assert torch.allclose(rounded / step, (rounded / step).round(), atol=0.1)


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


def changed(file: str, **fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        whole = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**whole, **fields}))

    return change


def written(file: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return change


def without(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


FOREIGN = {"AutoConfig": "configuration.C", "AutoModelForCausalLM": "modeling.M"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("tokenizer.json"), "Expected .* tokenizer.json; set THUMBPRINT_MODEL"),
        (written("tokenizer.json", b"{}"), "cannot be loaded: .* Expected"),
        (without("model.safetensors"), "cannot be loaded: .*model.safetensors.* Expected"),
        (written("model.safetensors", b"abcdefgh1234"), "cannot be loaded: .*header.* Expected"),
        (written("config.json", b"{nope"), "cannot be loaded: .*not a valid JSON"),
        (changed("config.json", model_type="spaceship"), "cannot be loaded: .*`spaceship`"),
        (
            changed("config.json", model_type="spaceship", auto_map=FOREIGN),
            "code of its own.* is never run here",
        ),
        (changed("config.json", num_attention_heads="many"), "cannot be loaded: .*num_attention_heads"),
        (changed("config.json", hidden_size=64), "cannot be loaded: "),
        (
            changed("config.json", num_hidden_layers=3),
            "9 are missing, model.layers.2.* Fetch the model again",
        ),
        (
            changed("config.json", model_type="mamba"),
            r"\(mamba\) has linear_attention; expected a decoder",
        ),
        (changed("config.json", model_type="mixtral"), r"\(mixtral\) has a mixture of experts; expected"),
        (changed("config.json", model_type="t5"), r"\(t5\) has an encoder; expected"),
        (changed("config.json", max_position_embeddings=100), "takes 100 tokens at most.*THUMBPRINT_MAX_NEW"),
        (
            without("chat_template.jinja"),
            "no chat template.*instruct or chat model.*THUMBPRINT_CHAT_TEMPLATE",
        ),
        (written("chat_template.jinja", b"{% for m %}"), "cannot be chatted with.*THUMBPRINT_CHAT_TEMPLATE"),
        (written("chat_template.jinja", b"Hello"), "leaves out the user message.*THUMBPRINT_CHAT_TEMPLATE"),
    ],
)
def test_model_that_cannot_be_used_says_why_and_the_way_out(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    change(copy)
    with pytest.raises(ModelUnavailable, match=words) as refused:
        load_base(settings_for(copy, tmp_path))
    assert "\n" not in str(refused.value)


def test_template_file_is_the_way_out_for_a_model_without_one(folder: Path, tmp_path: Path) -> None:
    from memory.schema import Message
    from training.prompt import encode_prompt

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    template = (copy / "chat_template.jinja").rename(tmp_path / "mine.jinja")
    base = load_base(settings_for(copy, tmp_path, chat_template=str(template)))
    own = load_base(settings_for(folder, tmp_path))
    hello = [Message("user", "Hello!")]
    assert encode_prompt(base.tokenizer, hello) == encode_prompt(own.tokenizer, hello)
    with pytest.raises(ModelUnavailable, match=r"nowhere\.jinja cannot be read.*THUMBPRINT_CHAT_TEMPLATE"):
        load_base(settings_for(folder, tmp_path, chat_template="nowhere.jinja"))


def test_studio_says_in_a_sentence_that_the_model_cannot_be_had(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from studio.opening import Opening

    opening = Opening(lambda: load_base(settings_for(tmp_path / "nothing", tmp_path)))  # type: ignore[arg-type]
    assert opening.begin().wait(30)
    assert "config.json is missing" in opening.problem
    (record,) = caplog.records
    assert opening.problem in record.getMessage() and record.exc_info is None


def test_network_that_is_down_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(
        ModelUnavailable, match=r"the Hub cannot be reached\. Connect once and run `hf download"
    ):
        find_model("nobody/nothing")


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
