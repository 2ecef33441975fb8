"""Weights that are no longer those that were prepared are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quantlab.errors import QuantlabError
from quantlab.files import write_text
from quantlab.workspace.checkpoint import list_files
from quantlab.workspace.prepared import Prepared, Source


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    weights = tmp_path / "elsewhere"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(bytes(100))
    found = Prepared(tmp_path / "root", "small")
    source = Source(
        model="small",
        kind="folder",
        name="elsewhere",
        weights=str(weights),
        files=list_files(weights),
        parameters=1,
        dtype="float32",
        vocabulary=8,
    )
    write_text(found.source_folder / "source.json", source.model_dump_json())
    return found


def test_the_same_weights_pass_also_where_they_were_written_again(prepared: Prepared) -> None:
    prepared.require_unchanged()
    (prepared.weights / "model.safetensors").write_bytes(bytes(100))
    prepared.require_unchanged()


@pytest.mark.parametrize("content", [bytes(99), bytes(99) + b"x", None])
def test_a_model_trained_again_in_place_is_refused(content: bytes | None, prepared: Prepared) -> None:
    path = prepared.weights / "model.safetensors"
    before = path.stat()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` and `rsync -a` leave it
    with pytest.raises(QuantlabError, match=r"model.safetensors is not what it was when small was prepared"):
        prepared.require_unchanged()
