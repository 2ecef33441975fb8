"""Routing changes against the unquantized model: known answers on a tiny mixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file
from trained import RECIPE

from quantlab.engines import Chosen, Routed
from quantlab.engines.transformers import TransformersEngine
from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.models.tiny import write_tiny_model
from quantlab.progress import Progress
from quantlab.records import DivergenceRecord
from quantlab.reference.store import Reference, folder_of
from quantlab.stages import convert, diverge, prepare, quantize, reference
from quantlab.stages._routing import RoutedWindows
from quantlab.workspace.cell import Cell

pytestmark = pytest.mark.slow
QUIET = Progress(quiet=True)
BLOCKS = (0, 1, 2, 3)
VARIANTS = ("baseline-16", "bitsandbytes-8", "gguf-16", "gguf-8", "gguf-4", "gguf-2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("routing")
    recipe = RECIPE | {
        "model": "mixture",
        "source": {"path": str(write_tiny_model("qwen3_moe", root / "tiny"))},
        "variants": {slug: {} for slug in VARIANTS},
        "reference": {"dtype": "float32"},
    }
    write_text(root / "recipes" / "mixture.yaml", yaml.safe_dump(recipe))
    prepare.run(root, "mixture", QUIET)
    convert.run(root, "mixture", root / "convert.log", QUIET)
    reference.run(root, "mixture", find("cpu"), QUIET)
    return root


def _diverged(root: Path, slug: str) -> DivergenceRecord:
    cell = Cell(root, "mixture", slug)
    quantize.run(cell, find("cpu"), QUIET)
    return diverge.run(cell, find("cpu"), QUIET)


@pytest.fixture(scope="module")
def records(root: Path) -> dict[str, DivergenceRecord]:
    return {slug: _diverged(root, slug) for slug in VARIANTS}


def _share(record: DivergenceRecord) -> float:
    assert record.routing_changes and record.routing_changes_reason is None
    return record.routing_changes.changed_token_share.value


def _stored(root: Path) -> Reference:
    return Reference(folder_of(root, "mixture"))


def test_the_reference_keeps_a_byte_for_each_expert_of_a_token(root: Path) -> None:
    stored = _stored(root)
    kept = stored.info.experts
    assert kept and stored.info.experts_reason is None
    assert (kept.blocks, kept.experts, kept.experts_per_token) == (BLOCKS, 8, 2)
    assert kept.bytes_per_scored_token == len(BLOCKS) * 2
    sets = stored.experts(0)
    assert (
        sets.dtype == np.uint8 and sets.shape[1:] == (len(BLOCKS), 2) and (sets[..., 0] < sets[..., 1]).all()
    )


def test_the_unquantized_model_against_itself_changes_nothing(root: Path) -> None:
    cell, stored = Cell(root, "mixture", "baseline-16"), _stored(root)
    quantize.run(cell, find("cpu"), QUIET)
    weights = cell.prepared.weights
    engine = TransformersEngine(weights, weights, "cpu", dtype="float32")
    windows = RoutedWindows(cell, cell.checkpoint(), "itself", stored, engine)
    with QUIET.step("") as step:
        diverge.compare(stored.logits, windows.logits, cell.prepared.token_ids("evaluation"), windows, step)
    changes = windows.changes()
    assert changes and changes.changed_token_share.value == changes.replaced_expert_share.value == 0
    assert changes.changed_token_share_by_block == dict.fromkeys(BLOCKS, 0)


def test_two_experts_that_change_places_change_the_sets_that_hold_one_of_them(
    root: Path, tmp_path: Path
) -> None:
    """Router rows and experts alike: the model computes the same, under other numbers."""
    cell, stored = Cell(root, "mixture", "baseline-16"), _stored(root)
    weights, block, (one, other) = cell.prepared.weights, 2, (1, 6)
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for file in weights.iterdir():
        (swapped / file.name).write_bytes(file.read_bytes())
    tensors = load_file(swapped / "model.safetensors")
    mixture = f"model.layers.{block}.mlp."
    rows = tensors[f"{mixture}gate.weight"]
    rows[[one, other]] = rows[[other, one]]
    for name in [name for name in tensors if name.startswith(f"{mixture}experts.{one}.")]:
        twin = name.replace(f"experts.{one}.", f"experts.{other}.")
        tensors[name], tensors[twin] = tensors[twin], tensors[name]
    save_file(tensors, swapped / "model.safetensors", {"format": "pt"})
    engine = TransformersEngine(swapped, weights, "cpu", dtype="float32")
    windows = RoutedWindows(cell, cell.checkpoint(), "swapped", stored, engine)
    with QUIET.step("") as step:
        diverge.compare(stored.logits, windows.logits, cell.prepared.token_ids("evaluation"), windows, step)
    changes = windows.changes()
    sets = np.stack([stored.experts(i)[:, block] for i in range(stored.info.windows)])
    holds = [(sets == expert).any(-1) for expert in (one, other)]
    expected = float((holds[0] != holds[1]).mean())
    assert changes and 0.2 < expected < 0.8
    found = changes.changed_token_share_by_block
    assert found[block] == pytest.approx(expected, abs=1e-12)
    assert found[0] == found[1] == 0 and found[3] < 0.01  # another order of summation may tip a close call


def test_more_bits_change_no_more_tokens(records: dict[str, DivergenceRecord]) -> None:
    shares = [_share(records[slug]) for slug in ("gguf-16", "gguf-8", "gguf-4", "gguf-2")]
    assert shares == sorted(shares) and shares[0] < 0.01 and shares[-1] > 2 * shares[1] > 0


def test_both_engines_number_blocks_and_experts_alike(records: dict[str, DivergenceRecord]) -> None:
    for record in records.values():
        changes = record.routing_changes
        assert changes and tuple(changes.changed_token_share_by_block) == BLOCKS
        assert (changes.experts, changes.experts_per_token) == (8, 2)
        by_block = changes.changed_token_share_by_block.values()
        assert changes.changed_token_share.value == pytest.approx(sum(by_block) / len(BLOCKS))
        assert changes.replaced_expert_share.value <= changes.changed_token_share.value


def test_watching_does_not_change_the_logits(root: Path) -> None:
    from quantlab.engines.llama_cpp import LlamaCppEngine

    cell = Cell(root, "mixture", "gguf-4")
    quantize.run(cell, find("cpu"), QUIET)
    ids = cell.prepared.token_ids("evaluation")[0]
    engine = LlamaCppEngine(cell.checkpoint().gguf(), cell.prepared.weights, "cpu")
    try:
        routed, plain = engine.routed_logits(ids, 20), engine.logits(ids, 20)
    finally:
        engine.close()
    assert np.array_equal(routed.logits, plain)
    assert {rows.shape for rows in routed.chosen.by_block.values()} == {(len(ids) - 20, 2)}


class _Silent:
    """An engine that gives logits and tells nothing."""

    def __init__(self, logits: Any) -> None:
        self.logits, self.asked = logits, 0

    def routed_logits(self, token_ids: Any, first: int) -> Routed:
        self.asked += 1
        return Routed(self.logits(token_ids, first), Chosen(reason="it does not tell"))


def test_an_engine_that_does_not_tell_is_a_reason_and_is_asked_once(root: Path) -> None:
    cell, stored = Cell(root, "mixture", "baseline-16"), _stored(root)
    quantize.run(cell, find("cpu"), QUIET)
    ids = cell.prepared.token_ids("evaluation")
    engine = _Silent(lambda row, first: stored.logits(int((ids == row).all(1).argmax()))[first:])
    for _ in range(2):
        windows = RoutedWindows(cell, cell.checkpoint(), "silent", stored, engine)  # type: ignore[arg-type]
        with QUIET.step("") as step:
            diverge.compare(stored.logits, windows.logits, ids, windows, step)
        assert windows.changes() is None and windows.reason == "it does not tell"
    assert engine.asked == 1


def test_a_window_is_finished_when_its_experts_are_counted(root: Path) -> None:
    cell, stored = Cell(root, "mixture", "baseline-16"), _stored(root)
    ids, asked = cell.prepared.token_ids("evaluation"), []
    weights = cell.prepared.weights
    engine = TransformersEngine(weights, weights, "cpu", dtype="float32")

    def run() -> None:
        windows = RoutedWindows(cell, cell.checkpoint(), "killed", stored, engine)

        def logits(row: Any) -> Any:
            asked.append(int((ids == row).all(1).argmax()))
            return windows.logits(row)

        with QUIET.step("") as step:
            diverge.compare(stored.logits, logits, ids, windows, step)

    run()
    again = RoutedWindows(cell, cell.checkpoint(), "killed", stored, engine)
    torn = np.load(again._counts.path)  # type: ignore[union-attr]
    torn[2, 1] = np.nan
    np.save(again._counts.path, torn)  # type: ignore[union-attr]
    asked.clear()
    run()
    assert asked == [1]
