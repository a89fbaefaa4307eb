"""The shelf of adapters: numbered folders that are published whole or not at all, and checked before anyone serves one.

A version is ``root/v0007`` with ``adapter_model.safetensors``, ``adapter_config.json``, ``manifest.json``, a model card
and ``STABLE``, which holds the manifest's SHA-256 and is written last. The files come from this machine's trainer or
from elsewhere, so nothing in them is trusted before it has been checked, and nothing is ever unpickled. This module
loads no model and needs no torch: what an adapter *computes* is `training.fingerprint`'s to prove.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from training.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    AdapterRefused,
    check_files,
    sha256_of,
)
from training.manifest import Manifest

MANIFEST, CARD, STABLE = "manifest.json", "README.md", "STABLE"
_VERSION = re.compile(r"v\d{4,9}")
_RESERVED, _STAGING = ".reserved", ".staging-"

__all__ = ["AdapterRefused", "AdapterVersion", "Manifest", "Registry", "UnknownAdapter"]


class UnknownAdapter(LookupError):
    """No folder of that version; the message names those that exist."""


@dataclass(frozen=True)
class AdapterVersion:
    """One folder of the registry. `ok` says that it may be offered; if not, `problem` says why in a sentence."""

    version: str
    path: Path
    manifest: Manifest | None
    ok: bool
    problem: str = ""


class Registry:
    """The versions under `root`, which is made when first needed.

    `at_stage` is called with the name of each step of a publication just before it is taken, so that a test can stop
    the process there.
    """

    def __init__(self, root: Path, *, at_stage: Callable[[str], None] | None = None) -> None:
        self.root = root
        self._at_stage = at_stage or (lambda stage: None)

    def versions(self) -> list[AdapterVersion]:
        """Every version folder, oldest first. Cheap: the weights are not hashed here but by `verify`."""
        return [self.get(version) for version in self._numbered()]

    def get(self, version: str) -> AdapterVersion:
        """One version with its state, as in `versions`. Raises `UnknownAdapter`."""
        path = self._folder(version)
        try:
            manifest = _read_manifest(path, version)
        except AdapterRefused as problem:
            return AdapterVersion(version, path, None, ok=False, problem=str(problem))
        return AdapterVersion(version, path, manifest, ok=True)

    def verify(self, version: str, *, base_identity: str) -> AdapterVersion:
        """Check everything that can be checked without the model: completeness, hashes, formats, the base.

        Raises `UnknownAdapter`, or `AdapterRefused` with the first reason found.
        """
        path = self._folder(version)
        manifest = _read_manifest(path, version)
        if manifest.base_identity != base_identity:
            raise AdapterRefused(
                f"Adapter {version} was trained on base {manifest.base_model!r} ({manifest.base_identity}), but this "
                f"studio serves base {base_identity}. Set THUMBPRINT_MODEL={manifest.base_model} or retrain."
            )
        check_files(path, version, hashes=manifest.hashes, beside={MANIFEST, STABLE})
        return AdapterVersion(version, path, manifest, ok=True)

    def reserve(self) -> str:
        """Take the next version number. It is never given out again, whatever becomes of it, in any process."""
        reserved = self.root / _RESERVED
        reserved.mkdir(parents=True, exist_ok=True)
        taken = [*self._numbered(), *(p.name for p in reserved.iterdir() if _VERSION.fullmatch(p.name))]
        number = max((int(version[1:]) for version in taken), default=0) + 1
        while True:
            version = f"v{number:04d}"
            try:
                os.close(os.open(reserved / version, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                number += 1
            else:
                return version

    def publish(self, version: str, adapter_dir: Path, manifest: Manifest) -> AdapterVersion:
        """Put the adapter in `adapter_dir` on the shelf as `version`, with `manifest` and a model card.

        Only the weights and the config are taken from `adapter_dir`. The version appears with one rename and counts
        only from the moment `STABLE` is there; a process killed before leaves nothing that is served. Raises
        `AdapterRefused` for files that `verify` would refuse, `FileExistsError` when the version is published already.
        """
        _check_name(version)
        if manifest.version != version:
            raise AdapterRefused(
                f"The manifest is for {manifest.version!r}, not for {version}; write the same version."
            )
        final = self.root / version
        if (final / STABLE).exists():
            raise FileExistsError(f"Adapter {version} is published already; reserve() a new version.")
        self._sweep()
        staging = self.root / f"{_STAGING}{version}-{os.getpid()}"
        self._stage(staging, adapter_dir, manifest)
        self._at_stage("rename")
        if final.exists():  # a publication of this version that was killed before STABLE
            shutil.rmtree(final)
        os.rename(staging, final)
        _sync(self.root)
        self._at_stage("stable")
        _write(final / STABLE, sha256_of(final / MANIFEST) + "\n")
        _sync(final)
        return self.get(version)

    def _stage(self, staging: Path, adapter_dir: Path, manifest: Manifest) -> None:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
            self._at_stage(f"copy {name}")
            source = adapter_dir / name
            if not source.is_file():
                raise AdapterRefused(
                    f"There is no {name} in {adapter_dir}; save the adapter there before publishing."
                )
            _write(staging / name, source.read_bytes())
        self._at_stage("card")
        _write(staging / CARD, _card(manifest))
        self._at_stage("manifest")
        hashes = {file.name: sha256_of(file) for file in sorted(staging.iterdir())}
        check_files(staging, manifest.version, hashes=hashes, beside=set())
        _write(staging / MANIFEST, replace(manifest, hashes=hashes).to_json())
        _sync(staging)

    def _sweep(self) -> None:
        """Remove the staging folders of processes that are gone."""
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in self.root.glob(f"{_STAGING}*"):
            owner = folder.name.rpartition("-")[2]
            if not (owner.isdigit() and _is_alive(int(owner))):
                shutil.rmtree(folder, ignore_errors=True)

    def _numbered(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(
            (p.name for p in self.root.iterdir() if _VERSION.fullmatch(p.name)), key=lambda v: int(v[1:])
        )

    def _folder(self, version: str) -> Path:
        _check_name(version)
        path = self.root / version
        if not os.path.lexists(path):
            known = ", ".join(self._numbered()) or "none"
            raise UnknownAdapter(f"There is no adapter {version} in {self.root}; there are: {known}.")
        return path


def _check_name(version: str) -> None:
    if not _VERSION.fullmatch(version):
        raise AdapterRefused(
            f"Adapter version is {version!r}; expected v and at least four digits, such as v0007."
        )


def _read_manifest(path: Path, version: str) -> Manifest:
    """The manifest of a finished publication. Raises `AdapterRefused`."""
    if path.is_symlink() or not path.is_dir():
        raise AdapterRefused(
            f"Adapter {version} is not a folder of its own but a link or a file; publish it anew."
        )
    for name in (STABLE, MANIFEST):
        if (path / name).is_symlink():
            raise AdapterRefused(f"Adapter {version}: {name} is a link; links are never followed.")
        if not (path / name).is_file():
            raise AdapterRefused(
                f"Adapter {version} has no {name}: its publication never finished. Train it again."
            )
    if (path / STABLE).read_text(encoding="ascii", errors="replace").strip() != sha256_of(path / MANIFEST):
        raise AdapterRefused(
            f"Adapter {version}: manifest.json was changed after publication (SHA-256 differs)."
        )
    try:
        manifest = Manifest.from_json((path / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterRefused(f"Adapter {version}: {error}") from error
    if manifest.version != version:
        raise AdapterRefused(
            f"Adapter {version}: its manifest is for {manifest.version!r}; folders were renamed."
        )
    return manifest


def _card(manifest: Manifest) -> str:
    """The model card, with the front matter that the Hub and PEFT read."""
    return (
        f"---\nbase_model: {json.dumps(manifest.base_model)}\nlibrary_name: peft\npipeline_tag: text-generation\n"
        f"tags:\n- lora\n- thumbprint\n- {json.dumps(manifest.method)}\n---\n\n"
        f"# Adapter {manifest.version}\n\n"
        f"A LoRA adapter for `{manifest.base_model}` ({manifest.quantization}), trained with {manifest.method} from "
        f"{len(manifest.feedback_ids)} judgements, starting from `{manifest.parent}`.\n\n"
        f"- fingerprint: `{manifest.fingerprint}`\n- base identity: `{manifest.base_identity}`\n"
        f"- base revision: `{manifest.base_revision or 'local folder'}`\n- code: `{manifest.code_version}`\n\n"
        "`manifest.json` holds the settings, the evaluation report and the ids of the feedback behind it.\n"
    )


def _write(path: Path, content: str | bytes) -> None:
    data = content.encode("utf-8") if isinstance(content, str) else content
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in `folder` durable. Windows cannot open folders and syncs them by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
