"""What a checkpoint must hold before it counts, and its loading in a fresh process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantlab.errors import CellFailure
from quantlab.formats.stored import Stored
from quantlab.models.tiny import write_tiny_model
from quantlab.stages._reload import reload, reload_apart
from quantlab.stages._verify import Made, _require_layers
from quantlab.workspace.checkpoint import Checkpoint, Manifest, list_files

TOKENS = np.arange(4, 36, dtype=np.int64)


def _made(layers: set[str]) -> Made:
    return Made(1.0, len(layers), frozenset(layers), None, (), 0, None)


def _stored(names: set[str]) -> Stored:
    return Stored(0, 0, 0, len(names), {}, frozenset(names))


def test_a_quantized_router_is_refused_by_name() -> None:
    names = {"model.layers.0.mlp.gate", "model.layers.0.mlp.experts.0.up_proj"}
    with pytest.raises(
        CellFailure, match=r"routers are quantized \(1, such as model\.layers\.0\.mlp\.gate\)"
    ):
        _require_layers(_stored(names), _made(names))


def test_layers_that_the_files_lack_are_named() -> None:
    asked = {f"model.layers.0.mlp.experts.{n}.up_proj" for n in range(3)}
    _require_layers(_stored(asked), _made(asked))
    with pytest.raises(
        CellFailure, match=r"2 layers are quantized, 3 were asked for: the files lack .*\.2\."
    ):
        _require_layers(_stored({name for name in asked if ".2." not in name}), _made(asked))


def test_a_fresh_process_gives_the_same_logits_and_says_what_is_wrong(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "model")
    manifest = Manifest(
        model="tiny", variant="gptq-4", method="gptq", bits=4, files=list_files(folder), tokenizer="."
    )
    checkpoint = Checkpoint(folder, manifest)
    apart = reload_apart(checkpoint, "cpu", TOKENS, False, tmp_path)
    assert np.array_equal(apart.real, reload(checkpoint, "cpu", TOKENS, False).real) and apart.dense is None
    assert apart.opening_note is None
    (folder / "model.safetensors").unlink()
    with pytest.raises(CellFailure, match=r"model\.safetensors is missing"):
        reload_apart(checkpoint, "cpu", TOKENS, False, tmp_path)
