"""The registry: published whole or not at all, and nothing unsafe, damaged or foreign is ever offered."""

from __future__ import annotations

import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from training.registry import AdapterRefused, Manifest, Registry, UnknownAdapter

BASE = "ba5e0000ba5e0000"
REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none"}
STAGES = (
    "copy adapter_model.safetensors",
    "copy adapter_config.json",
    "card",
    "manifest",
    "rename",
    "stable",
)


def safetensors(tensors: dict[str, list[int]]) -> bytes:
    """The bytes of a safetensors file with float32 ones of the given shapes."""
    header: dict[str, object] = {}
    data = b""
    for name, shape in tensors.items():
        count = 1
        for length in shape:
            count *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * count]}
        data += struct.pack("<f", 1.0) * count
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def candidate(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    weights = safetensors({f"{layer}.lora_A.weight": [2, 8], f"{layer}.lora_B.weight": [8, 2]})
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    return folder


def manifest(version: str) -> Manifest:
    return Manifest(
        version=version,
        parent="base",
        base_model="models/mini",
        base_revision="",
        base_identity=BASE,
        quantization="nf4",
        method="dpo",
        fingerprint="0123abcd",
        canary_logprobs=[-1.5, -2.25],
        base_canary_logprobs=[-1.0, -2.0],
        code_version="0.1.0",
        created_at=1_700_000_000.0,
        settings={"beta": 0.1},
        feedback_ids=["c1", "c2"],
        report={"win_rate": 0.75},
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "adapters")


@pytest.fixture
def published(registry: Registry, tmp_path: Path) -> Path:
    """The folder of one good published version, v0001."""
    version = registry.reserve()
    return registry.publish(version, candidate(tmp_path / "candidate"), manifest(version)).path


def rehash(folder: Path) -> None:
    """Make manifest and STABLE fit the files in `folder`, as someone would who tampers with care."""
    from training.adapter_files import sha256_of

    path = folder / "manifest.json"
    own = json.loads(path.read_text())
    own["hashes"] = {
        file.name: sha256_of(file)
        for file in folder.iterdir()
        if file.is_file() and file.name not in ("manifest.json", "STABLE")
    }
    path.write_text(json.dumps(own))
    (folder / "STABLE").write_text(sha256_of(path))


def test_published_version_is_offered_with_its_manifest(registry: Registry, published: Path) -> None:
    found = registry.verify("v0001", base_identity=BASE)
    assert found.ok and found.path == published and found.problem == ""
    assert found.manifest is not None
    assert replace(found.manifest, hashes={}) == manifest("v0001")
    assert set(found.manifest.hashes) == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert [version.version for version in registry.versions()] == ["v0001"]


def test_model_card_has_the_front_matter_of_peft(published: Path) -> None:
    card = (published / "README.md").read_text()
    front = card.split("---\n")[1]
    assert 'base_model: "models/mini"\n' in front
    assert "library_name: peft\n" in front
    assert "- lora\n" in front and '- "dpo"\n' in front
    assert "`0123abcd`" in card and "from 2 judgements" in card


def test_versions_come_in_order_of_their_numbers(registry: Registry, tmp_path: Path) -> None:
    for version in ("v10000", "v0002", "v9999"):
        registry.publish(version, candidate(tmp_path / version), manifest(version))
    assert [version.version for version in registry.versions()] == ["v0002", "v9999", "v10000"]
    assert registry.reserve() == "v10001"


def test_numbers_are_never_given_out_twice(registry: Registry, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: registry.reserve(), range(24)))
    assert sorted(taken) == [f"v{number:04d}" for number in range(1, 25)]
    assert Registry(registry.root).reserve() == "v0025"


def test_publishing_twice_is_refused(registry: Registry, published: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="reserve"):
        registry.publish("v0001", candidate(tmp_path / "again"), manifest("v0001"))


def test_only_weights_and_config_are_taken_from_the_candidate(registry: Registry, tmp_path: Path) -> None:
    folder = candidate(tmp_path / "candidate")
    (folder / "training_args.bin").write_bytes(pickle.dumps({"a": 1}))
    registry.publish("v0001", folder, manifest("v0001"))
    assert not (registry.root / "v0001" / "training_args.bin").exists()
    assert registry.verify("v0001", base_identity=BASE).ok


def test_foreign_base_is_refused_with_the_way_out(registry: Registry, published: Path) -> None:
    with pytest.raises(AdapterRefused, match="Set THUMBPRINT_MODEL=models/mini or retrain"):
        registry.verify("v0001", base_identity="0" * 16)


def test_truncated_weights_are_refused(registry: Registry, published: Path) -> None:
    weights = published / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(AdapterRefused, match="damaged or was changed"):
        registry.verify("v0001", base_identity=BASE)


def test_one_flipped_bit_is_refused(registry: Registry, published: Path) -> None:
    weights = published / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(AdapterRefused, match=r"adapter_model\.safetensors is damaged"):
        registry.verify("v0001", base_identity=BASE)


def test_missing_file_is_refused(registry: Registry, published: Path) -> None:
    (published / "adapter_config.json").unlink()
    with pytest.raises(AdapterRefused, match=r"adapter_config\.json is missing"):
        registry.verify("v0001", base_identity=BASE)


def test_folder_without_stable_is_listed_with_its_problem(registry: Registry, published: Path) -> None:
    (published / "STABLE").unlink()
    (found,) = registry.versions()
    assert not found.ok and "never finished" in found.problem
    with pytest.raises(AdapterRefused, match="no STABLE"):
        registry.verify("v0001", base_identity=BASE)


def test_changed_manifest_is_refused(registry: Registry, published: Path) -> None:
    path = published / "manifest.json"
    path.write_text(path.read_text().replace('"dpo"', '"ppo"'))
    assert "changed after publication" in registry.get("v0001").problem


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("parent"), "lacks parent"),
        (lambda m: m.update(extra=1), "unknown fields extra"),
        (lambda m: m.update(canary_logprobs=["a"]), "canary_logprobs"),
        (lambda m: m.update(version="v0002"), "for 'v0002'"),
        (lambda m: m["hashes"].update({"../../etc/passwd": "0"}), "not a plain file name"),
    ],
)
def test_malformed_manifest_is_refused(registry: Registry, published: Path, change, words: str) -> None:  # type: ignore[no-untyped-def]
    from training.adapter_files import sha256_of

    path = published / "manifest.json"
    own = json.loads(path.read_text())
    change(own)
    path.write_text(json.dumps(own))
    (published / "STABLE").write_text(sha256_of(path))
    with pytest.raises(AdapterRefused, match=words):
        registry.verify("v0001", base_identity=BASE)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": NaN}', "[" * 100_000])
def test_manifest_that_is_no_json_object_is_refused(registry: Registry, published: Path, text: str) -> None:
    from training.adapter_files import sha256_of

    (published / "manifest.json").write_text(text)
    (published / "STABLE").write_text(sha256_of(published / "manifest.json"))
    assert not registry.get("v0001").ok


def test_pickle_is_refused_by_its_name(registry: Registry, published: Path) -> None:
    (published / "adapter_model.bin").write_bytes(b"anything")
    rehash(published)
    with pytest.raises(AdapterRefused, match="pickle"):
        registry.verify("v0001", base_identity=BASE)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickle_renamed_to_safetensors_is_refused_by_its_content(
    registry: Registry, published: Path, kind: str
) -> None:
    weights = published / "adapter_model.safetensors"
    if kind == "pickle":
        weights.write_bytes(pickle.dumps({"a": [1] * 50}))
    else:
        with zipfile.ZipFile(weights, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    rehash(published)
    with pytest.raises(AdapterRefused, match="pickle"):
        registry.verify("v0001", base_identity=BASE)


def test_links_and_folders_are_refused(registry: Registry, published: Path, tmp_path: Path) -> None:
    (published / "notes.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterRefused, match="link or a folder"):
        registry.verify("v0001", base_identity=BASE)
    (published / "notes.txt").unlink()
    (published / "sub").mkdir()
    with pytest.raises(AdapterRefused, match="link or a folder"):
        registry.verify("v0001", base_identity=BASE)


def test_version_that_is_a_link_is_refused(registry: Registry, published: Path) -> None:
    (registry.root / "v0002").symlink_to(published, target_is_directory=True)
    with pytest.raises(AdapterRefused, match="not a folder of its own"):
        registry.verify("v0002", base_identity=BASE)


@pytest.mark.parametrize("version", ["../v0001", "v1", "v0001/..", "V0001", "", "v0001\n", "base"])
def test_odd_version_names_are_refused(registry: Registry, published: Path, version: str) -> None:
    with pytest.raises(AdapterRefused, match="such as v0007"):
        registry.get(version)


def test_unknown_version_names_those_that_exist(registry: Registry, published: Path) -> None:
    with pytest.raises(UnknownAdapter, match="v0001"):
        registry.get("v0009")


def test_unlisted_file_is_refused(registry: Registry, published: Path) -> None:
    (published / "extra.json").write_text("{}")
    with pytest.raises(AdapterRefused, match="not listed"):
        registry.verify("v0001", base_identity=BASE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"task_type": "SEQ_CLS"}, "expected CAUSAL_LM"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["score"]}, "modules_to_save"),
        ({"r": 0}, "rank r"),
    ],
)
def test_config_that_is_not_plain_lora_is_never_published(
    registry: Registry, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    folder = candidate(tmp_path / "candidate")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(AdapterRefused, match=words):
        registry.publish("v0001", folder, manifest("v0001"))
    assert registry.versions() == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a safetensors file"),
        (struct.pack("<Q", 2**62) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "malformed"),
        (struct.pack("<Q", 2) + b"{}", "0 bytes"),
        (safetensors({"model.embed_tokens.weight": [2]}), "not a LoRA matrix"),
        (safetensors({"x.lora_A.weight": [2]}) + b"more", "cut off or was changed"),
        (safetensors({"x.lora_A.weight": [2]})[:-4], "cut off or was changed"),
        (safetensors({"x.lora_A.weight": [4]}).replace(b"[4]", b"[3]"), "which its shape does not"),
    ],
)
def test_weights_with_a_bad_header_are_never_published(
    registry: Registry, tmp_path: Path, data: bytes, words: str
) -> None:
    folder = candidate(tmp_path / "candidate")
    (folder / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(AdapterRefused, match=words):
        registry.publish("v0001", folder, manifest("v0001"))
    assert registry.versions() == []


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tests.test_registry import manifest
from training.registry import Registry

def stop_at(stage):
    if stage == sys.argv[3]:
        print("reached", flush=True)
        time.sleep(60)

Registry(Path(sys.argv[1]), at_stage=stop_at).publish("v0001", Path(sys.argv[2]), manifest("v0001"))
"""


@pytest.mark.parametrize("stage", STAGES)
def test_publisher_killed_at_any_stage_leaves_nothing_served(tmp_path: Path, stage: str) -> None:
    root, folder = tmp_path / "adapters", candidate(tmp_path / "candidate")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(folder), stage, str(REPOSITORY)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "reached\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait(timeout=10)
    child.stdout.close()

    registry = Registry(root)
    assert [version.version for version in registry.versions() if version.ok] == []
    with pytest.raises((AdapterRefused, UnknownAdapter)):
        registry.verify("v0001", base_identity=BASE)

    again = registry.publish("v0001", folder, manifest("v0001"))
    following = registry.reserve()
    registry.publish(following, folder, manifest(following))
    assert again.ok
    assert [version.version for version in registry.versions() if version.ok] == ["v0001", "v0002"]
    assert registry.verify("v0002", base_identity=BASE).ok
    assert not list(root.glob(".staging-*"))


def test_staging_of_a_living_process_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    other = registry.root / f".staging-v0009-{os.getppid()}"
    other.mkdir(parents=True)
    registry.publish("v0001", candidate(tmp_path / "candidate"), manifest("v0001"))
    assert other.exists()
