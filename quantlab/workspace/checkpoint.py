"""The checkpoint: a folder of weights and a manifest.json, the only thing that `quantize` passes on.

The manifest holds nothing that differs between two runs of the same settings: the same settings give the same bytes.
It names every file with its sha256, so a stage that depends on the manifest depends on the weights.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from quantlab.errors import CellFailure, QuantlabError
from quantlab.files import sha256, write_text
from quantlab.frozen import Frozen
from quantlab.records import Failure

MANIFEST = "manifest.json"


class FileEntry(Frozen):
    """One weight file of a checkpoint."""

    bytes: int
    sha256: str


class Manifest(Frozen):
    """What a checkpoint is and how it was made."""

    schema_version: int = 1
    model: str
    variant: str
    method: str
    bits: int
    format: str = "safetensors"
    settings: dict[str, Any] = {}
    source: dict[str, str] = {}
    """Where the unquantized weights came from: kind, name, revision, sha256 of the prepared source."""
    calibration_sha256: str | None = None
    """Of the calibration token ids; None where the method uses none."""
    seed: int | None = None
    versions: dict[str, str] = {}
    weights: str = "."
    """Folder of the weights, from the checkpoint's folder; the baseline's points at the prepared source."""
    tokenizer: str = "."
    """Folder of the tokenizer, from the checkpoint's folder."""
    files: dict[str, FileEntry] = {}
    parameters: int | None = None
    trust_remote_code: bool = False
    collapsed: bool = False
    dense_verified: bool = False
    """Whether its layers dequantized once gave the real kernel's logits (see stages/_verify.py)."""
    dense_check_nats: float | None = None
    """Mean divergence between the two on the check text."""
    failure: Failure | None = None
    """Why there are no weights."""


class Checkpoint(NamedTuple):
    """A checkpoint on disk."""

    folder: Path
    manifest: Manifest

    @property
    def weights(self) -> Path:
        return Path(os.path.normpath(self.folder / self.manifest.weights))

    @property
    def tokenizer(self) -> Path:
        return Path(os.path.normpath(self.folder / self.manifest.tokenizer))

    @property
    def sha256(self) -> str:
        """Hash of the manifest's file: identifies weights, settings and versions together."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    @property
    def disk_bytes(self) -> int:
        return sum(entry.bytes for entry in self.manifest.files.values())

    def gguf(self) -> Path:
        """The GGUF file of a checkpoint in that format."""
        return self.weights / next(name for name in self.manifest.files if name.endswith(".gguf"))

    def require_weights(self) -> None:
        """Raise CellFailure where the quantization failed or a file is not the one that the manifest names.

        Sizes are checked at every opening, and the contents of a file that was written after the manifest was.
        """
        if self.manifest.failure:
            raise CellFailure("not_measured", f"not quantized: {self.manifest.failure.reason}")
        written = (self.folder / MANIFEST).stat().st_mtime_ns
        for name, entry in self.manifest.files.items():
            path = self.weights / name
            if not path.is_file():
                raise CellFailure("broken_checkpoint", f"{name} is missing")
            if path.stat().st_size != entry.bytes:
                raise CellFailure("broken_checkpoint", f"{name} has {path.stat().st_size} bytes, the manifest says {entry.bytes}")
            if path.stat().st_mtime_ns > written:
                _require_content(path, entry)

    def verify_files(self) -> None:
        """Raise CellFailure where a file's contents are not what the manifest says."""
        self.require_weights()
        for name, entry in self.manifest.files.items():
            _require_content(self.weights / name, entry)


def _require_content(path: Path, entry: FileEntry) -> None:
    if sha256(path) != entry.sha256:
        raise CellFailure("broken_checkpoint", f"{path.name} was changed after it was made: its sha256 is not the manifest's")


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Every file below a folder but the manifest, with size and hash, sorted by name."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(folder).as_posix(): FileEntry(bytes=p.stat().st_size, sha256=sha256(p)) for p in paths}


def write_manifest(folder: Path, manifest: Manifest) -> Checkpoint:
    """Write manifest.json into a checkpoint's folder."""
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    return Checkpoint(folder, manifest)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's manifest. Raises QuantlabError where there is none or it is not one."""
    path = folder / MANIFEST
    try:
        return Checkpoint(folder, Manifest.model_validate_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise QuantlabError(f"{folder} is no checkpoint: it has no {MANIFEST}; run the quantize stage first") from None
    except ValidationError as error:
        raise QuantlabError(f"{path} is no manifest of this version of quantlab: {error.error_count()} problems; quantize again") from None
