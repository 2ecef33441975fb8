"""The reference is exact and small; a checkpoint that was changed after it was made is not measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from quantlab.cell import Cell
from quantlab.device import find
from quantlab.errors import CellFailure
from quantlab.files import write_text
from quantlab.progress import Progress
from quantlab.stages import diverge, measure, quantize, reference

pytestmark = pytest.mark.slow
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def info(workspace: Path) -> reference.ReferenceInfo:
    return reference.run(workspace, "small", find("cpu"), QUIET)


def test_the_model_against_itself_is_zero(workspace: Path, info: reference.ReferenceInfo) -> None:
    from quantlab.analysis.divergence import window_values
    from quantlab.engines.transformers import TransformersEngine
    from quantlab.prepared import Prepared

    prepared, stored = Prepared(workspace, "small"), reference.Reference(reference.folder_of(workspace, "small"))
    engine = TransformersEngine(prepared.weights, prepared.weights, "cpu", dtype=info.dtype)
    for i, ids in enumerate(prepared.token_ids("evaluation")):
        logits = engine.logits(ids)
        assert np.array_equal(stored.logits(i), logits)
        assert (window_values(stored.logits(i), logits, ids).kl == 0).all()


def test_it_is_smaller_than_stored_logits(workspace: Path, info: reference.ReferenceInfo) -> None:
    from quantlab.prepared import Prepared

    assert info.bytes_per_scored_token < 0.75 * 2 * Prepared(workspace, "small").source().vocabulary
    assert info.bytes_per_scored_token == pytest.approx(4 * info.hidden_size * info.length / (info.length - 1 - info.length // 2))


def test_a_changed_checkpoint_is_not_measured(workspace: Path, info: reference.ReferenceInfo) -> None:
    cell, device = Cell(workspace, "small", "bitsandbytes-8"), find("cpu")
    quantize.run(cell, device, QUIET)
    before = diverge.run(cell, device, QUIET).kl_divergence_nats
    assert before and before.value > 0
    path = cell.checkpoint().weights / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for stage in (measure, diverge):
        with pytest.raises(CellFailure, match="changed after it was made") as error:
            stage.run(cell, device, QUIET)
        assert error.value.kind == "broken_checkpoint"


def test_settings_that_changed_do_not_overwrite_a_checkpoint(workspace: Path) -> None:
    from quantlab.errors import QuantlabError

    path = workspace / "recipes" / "small.yaml"
    recipe = yaml.safe_load(path.read_text())
    cell = Cell(workspace, "small", "bitsandbytes-8")
    if not cell.checkpoint_folder.exists():
        quantize.run(cell, find("cpu"), QUIET)
    write_text(path, yaml.safe_dump(recipe | {"seed": 99}))
    with pytest.raises(QuantlabError, match="was made from other settings: give the variant a label"):
        quantize.run(Cell(workspace, "small", "bitsandbytes-8"), find("cpu"), QUIET)
    write_text(path, yaml.safe_dump(recipe))
