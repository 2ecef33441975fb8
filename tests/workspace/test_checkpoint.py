"""A checkpoint that was changed or cut after the fact is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quantlab.errors import CellFailure, QuantlabError
from quantlab.records import Failure
from quantlab.workspace import contents
from quantlab.workspace.checkpoint import Checkpoint, Manifest, list_files, read_checkpoint, write_manifest


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    (tmp_path / "model.safetensors").write_bytes(b"weights" * 100)
    manifest = Manifest(model="m", variant="gptq-4", method="gptq", bits=4, files=list_files(tmp_path))
    return write_manifest(tmp_path, manifest)


def test_the_manifest_is_read_as_it_was_written(checkpoint: Checkpoint) -> None:
    again = read_checkpoint(checkpoint.folder)
    assert again == checkpoint and again.sha256 == checkpoint.sha256 and again.disk_bytes == 700
    again.verify_files()


def test_a_changed_byte_is_noticed(checkpoint: Checkpoint) -> None:
    path = checkpoint.folder / "model.safetensors"
    path.write_bytes(b"W" + path.read_bytes()[1:])
    for check in (checkpoint.require_weights, checkpoint.verify_files):
        with pytest.raises(CellFailure, match="changed after it was made"):
            check()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("how", ["in place", "mv", "through another link"])
@pytest.mark.parametrize("older_seconds", [0, 3600])
def test_weights_of_the_same_size_and_an_equal_or_older_time_are_not_measured(
    checkpoint: Checkpoint,
    large: bool,
    how: str,
    older_seconds: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `mv`, `cp -p` and `rsync -t` leave them, and damage in DVC's cache, which has another link to the
    same file."""
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**12))
    monkeypatch.setattr(contents, "SMALL_BYTES", 0 if large else 2**20)
    path = checkpoint.folder / "model.safetensors"
    other = checkpoint.folder.parent / f"{checkpoint.folder.name}-other"
    if how == "through another link":
        other.hardlink_to(path)
    checkpoint.require_weights()
    before = path.stat()
    written = path if how == "in place" else other
    written.write_bytes(b"W" + path.read_bytes()[1:])
    os.utime(written, ns=(before.st_atime_ns, before.st_mtime_ns - older_seconds * 10**9))
    if how == "mv":
        other.replace(path)
    for check in (checkpoint.require_weights, checkpoint.verify_files):
        with pytest.raises(CellFailure, match=r"model.safetensors was changed after it was made"):
            check()


def test_the_hash_is_that_of_the_manifest_that_was_checked(checkpoint: Checkpoint) -> None:
    seen = read_checkpoint(checkpoint.folder)
    write_manifest(checkpoint.folder, checkpoint.manifest.model_copy(update={"seed": 2}))
    assert seen.sha256 == checkpoint.sha256 != read_checkpoint(checkpoint.folder).sha256


def test_a_file_that_was_copied_again_is_the_same(checkpoint: Checkpoint) -> None:
    path = checkpoint.folder / "model.safetensors"
    path.write_bytes(path.read_bytes())
    checkpoint.require_weights()


@pytest.mark.parametrize("content", [b"", b"weights", b"w" * 701])
def test_a_cut_or_grown_file_is_noticed_at_every_opening(checkpoint: Checkpoint, content: bytes) -> None:
    (checkpoint.folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CellFailure, match="the manifest says 700"):
        checkpoint.require_weights()


def test_a_failed_quantization_has_no_weights(tmp_path: Path) -> None:
    failure = Failure(kind="unsupported", reason="no such thing")
    made = write_manifest(
        tmp_path, Manifest(model="m", variant="gptq-4", method="gptq", bits=4, failure=failure)
    )
    with pytest.raises(CellFailure, match="not quantized: no such thing"):
        made.require_weights()


def test_a_folder_without_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(QuantlabError, match=r"no manifest\.json"):
        read_checkpoint(tmp_path)
