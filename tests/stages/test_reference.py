"""The reference is exact and small; a checkpoint that was changed after it was made is not measured."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from quantlab.errors import CellFailure, QuantlabError
from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.progress import Progress
from quantlab.stages import diverge, measure, quantize, reference, sensitivity
from quantlab.workspace.cell import Cell

pytestmark = pytest.mark.slow
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def info(workspace: Path) -> reference.ReferenceInfo:
    return reference.run(workspace, "small", find("cpu"), QUIET)


def test_the_model_against_itself_is_zero(workspace: Path, info: reference.ReferenceInfo) -> None:
    from quantlab.analysis.divergence import window_values
    from quantlab.engines.transformers import TransformersEngine
    from quantlab.workspace.prepared import Prepared

    prepared, stored = (
        Prepared(workspace, "small"),
        reference.Reference(reference.folder_of(workspace, "small")),
    )
    engine = TransformersEngine(prepared.weights, prepared.weights, "cpu", dtype=info.dtype)
    for i, ids in enumerate(prepared.token_ids("evaluation")):
        logits = engine.logits(ids)
        assert np.array_equal(stored.logits(i), logits)
        assert (window_values(stored.logits(i), logits, ids).kl == 0).all()


def test_it_is_smaller_than_stored_logits(workspace: Path, info: reference.ReferenceInfo) -> None:
    from quantlab.workspace.prepared import Prepared

    assert info.bytes_per_scored_token < 0.75 * 2 * Prepared(workspace, "small").source().vocabulary
    assert info.bytes_per_scored_token == pytest.approx(
        4 * info.hidden_size * info.length / (info.length - 1 - info.length // 2)
    )


def test_it_says_what_it_is_of_and_that_its_head_is_exact(
    workspace: Path, info: reference.ReferenceInfo
) -> None:
    from quantlab.workspace.prepared import Prepared

    assert info.source_sha256 == Prepared(workspace, "small").source_sha256
    assert (info.requested_dtype, info.dtype, info.head_max_difference, info.head_divergence_nats) == (
        "auto",
        "float32",
        0.0,
        0.0,
    )
    hidden = np.load(reference.folder_of(workspace, "small") / "hidden.npy", mmap_mode="r")
    assert info.hidden_sha256 == hashlib.sha256(hidden.tobytes()).hexdigest()


CHANGES: dict[str, tuple[str, dict[str, object], str]] = {
    "text": ("models/small/text/text.json", {"evaluation_sha256": "0" * 64}, "was computed on another text"),
    "revision": (
        "models/small/source/source.json",
        {"revision": "1234abcd"},
        "is of another revision of the model",
    ),
    "weights": (
        "models/small/source/source.json",
        {"parameters": 1},
        "is of other weights than those prepared now",
    ),
    "precision": (
        "recipes/small.yaml",
        {"reference": {"dtype": "bfloat16"}},
        "computed in float32, the recipe asks for bfloat16",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("stage", [diverge, sensitivity])
def test_another_reference_is_never_compared_with(
    workspace: Path, info: reference.ReferenceInfo, stage: Any, change: str
) -> None:
    name, values, said = CHANGES[change]
    cell, path = Cell(workspace, "small", "baseline-16"), workspace / name
    if not cell.checkpoint_folder.exists():
        quantize.run(cell, find("cpu"), QUIET)
    before = path.read_text()
    write_text(path, json.dumps(yaml.safe_load(before) | values))  # JSON is YAML
    try:
        with pytest.raises(QuantlabError, match=said):
            stage.run(Cell(workspace, "small", "baseline-16"), find("cpu"), QUIET)
    finally:
        write_text(path, before)


def test_other_windows_of_the_same_tokens_are_another_text(
    workspace: Path, info: reference.ReferenceInfo
) -> None:
    path = workspace / "models/small/text/evaluation.npy"
    ids = np.load(path)
    np.save(path, ids.reshape(ids.shape[0] * 2, -1))  # the same bytes, so the same hash
    try:
        with pytest.raises(QuantlabError, match="other windows of the text"):
            reference.Reference(reference.folder_of(workspace, "small")).require_current(
                Cell(workspace, "small", "baseline-16")
            )
    finally:
        np.save(path, ids)


def test_the_precision_that_auto_chose_may_be_named(workspace: Path, info: reference.ReferenceInfo) -> None:
    path = workspace / "recipes" / "small.yaml"
    before = path.read_text()
    write_text(path, yaml.safe_dump(yaml.safe_load(before) | {"reference": {"dtype": "float32"}}))
    try:
        reference.Reference(reference.folder_of(workspace, "small")).require_current(
            Cell(workspace, "small", "baseline-16")
        )
    finally:
        write_text(path, before)


def test_the_record_names_its_reference(workspace: Path, info: reference.ReferenceInfo) -> None:
    cell = Cell(workspace, "small", "baseline-16")
    if not cell.checkpoint_folder.exists():
        quantize.run(cell, find("cpu"), QUIET)
    record, path = (
        diverge.run(cell, find("cpu"), QUIET),
        reference.folder_of(workspace, "small") / "reference.json",
    )
    assert (
        record.reference_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        and record.reference_dtype == "float32"
    )
    assert record.notes == () and diverge.run(cell, find("cpu"), QUIET) == record
    elsewhere = find("cpu").model_copy(update={"name": "another machine"})
    moved = info.model_copy(update={"device": elsewhere.name, "head_device": elsewhere.name})
    before = path.read_text()
    write_text(path, moved.model_dump_json())
    try:
        again = diverge.run(cell, find("cpu"), QUIET)
        assert (
            again.reference_sha256 != record.reference_sha256
            and "head ran on another machine" in again.notes[0]
        )
    finally:
        write_text(path, before)


def test_a_changed_checkpoint_is_not_measured(workspace: Path, info: reference.ReferenceInfo) -> None:
    cell, device = Cell(workspace, "small", "bitsandbytes-8"), find("cpu")
    quantize.run(cell, device, QUIET)
    before = diverge.run(cell, device, QUIET).kl_divergence_nats
    assert before and before.value > 0
    path = cell.checkpoint().weights / "model.safetensors"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    try:
        for stage in (measure, diverge):
            with pytest.raises(CellFailure, match="changed after it was made") as error:
                stage.run(cell, device, QUIET)
            assert error.value.kind == "broken_checkpoint"
    finally:
        path.write_bytes(sound)  # other tests measure it


def test_settings_that_changed_do_not_overwrite_a_checkpoint(workspace: Path) -> None:
    path = workspace / "recipes" / "small.yaml"
    recipe = yaml.safe_load(path.read_text())
    cell = Cell(workspace, "small", "bitsandbytes-8")
    if not cell.checkpoint_folder.exists():
        quantize.run(cell, find("cpu"), QUIET)
    write_text(path, yaml.safe_dump(recipe | {"seed": 99}))
    with pytest.raises(QuantlabError, match="was made from other settings: give the variant a label"):
        quantize.run(Cell(workspace, "small", "bitsandbytes-8"), find("cpu"), QUIET)
    write_text(path, yaml.safe_dump(recipe))
