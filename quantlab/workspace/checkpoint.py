"""Read and write a checkpoint: weights and a manifest.json, the only thing that `quantize` passes on.

The manifest holds nothing that differs between two runs of the same settings: the same settings give the same
bytes. It names every file with its sha256, so a stage that depends on the manifest depends on the weights.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from quantlab.errors import CellFailure, QuantlabError
from quantlab.files import sha256, write_text
from quantlab.frozen import Frozen
from quantlab.records import Failure
from quantlab.workspace.contents import content_sha256

MANIFEST = "manifest.json"
_OF_A_MODEL = (".safetensors", ".json", ".model", ".txt", ".jinja", ".py")


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
    digest: str | None = None
    """sha256 of the file that the manifest was read from; None for one that is not that of the file."""

    @property
    def weights(self) -> Path:
        return Path(os.path.normpath(self.folder / self.manifest.weights))

    @property
    def tokenizer(self) -> Path:
        return Path(os.path.normpath(self.folder / self.manifest.tokenizer))

    @property
    def sha256(self) -> str:
        """Hash of the manifest as it was read: identifies weights, settings and versions together."""
        return self.digest or hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    @property
    def disk_bytes(self) -> int:
        return sum(entry.bytes for entry in self.manifest.files.values())

    def gguf(self) -> Path:
        """The GGUF file of a checkpoint in that format."""
        return self.weights / next(name for name in self.manifest.files if name.endswith(".gguf"))

    def require_weights(self) -> None:
        """Raise CellFailure where the quantization failed or a file's contents are not what the manifest
        says.

        A file is read again only where it was put in place or written since it was last read.
        """
        self._require(content_sha256)

    def verify_files(self) -> None:
        """The same, with every byte read from the disk."""
        self._require(sha256)

    def _require(self, digest: Callable[[Path], str]) -> None:
        if self.manifest.failure:
            raise CellFailure("not_measured", f"not quantized: {self.manifest.failure.reason}")
        for name, entry in self.manifest.files.items():
            path = self.weights / name
            if not path.is_file():
                raise CellFailure("broken_checkpoint", f"{name} is missing")
            if path.stat().st_size != entry.bytes:
                raise CellFailure(
                    "broken_checkpoint",
                    f"{name} has {path.stat().st_size} bytes, the manifest says {entry.bytes}",
                )
            if digest(path) != entry.sha256:
                raise CellFailure(
                    "broken_checkpoint",
                    f"{name} was changed after it was made: its sha256 is not the manifest's",
                )


def entry_of(path: Path) -> FileEntry:
    """A file's size and hash."""
    return FileEntry(bytes=path.stat().st_size, sha256=content_sha256(path))


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Every file below a folder but the manifest, with size and hash, sorted by name."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(folder).as_posix(): entry_of(p) for p in paths}


def model_files(folder: Path) -> dict[str, FileEntry]:
    """The files right in a folder that make a model what it is: weights, configuration, tokenizer, code."""
    paths = sorted(
        p for p in folder.iterdir() if p.is_file() and p.name != MANIFEST and p.name.endswith(_OF_A_MODEL)
    )
    return {p.name: entry_of(p) for p in paths}


def write_manifest(folder: Path, manifest: Manifest) -> Checkpoint:
    """Write manifest.json into a checkpoint's folder."""
    content = manifest.model_dump_json(indent=2) + "\n"
    write_text(folder / MANIFEST, content)
    return Checkpoint(folder, manifest, hashlib.sha256(content.encode()).hexdigest())


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's manifest. Raises QuantlabError where there is none or it is not one."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        return Checkpoint(folder, Manifest.model_validate_json(content), hashlib.sha256(content).hexdigest())
    except FileNotFoundError:
        raise QuantlabError(
            f"{folder} is not a checkpoint: it has no {MANIFEST}; run the quantize stage first"
        ) from None
    except ValidationError as error:
        raise QuantlabError(
            f"{path} is not a manifest of this version of quantlab: {error.error_count()} problems; quantize"
            " again"
        ) from None
