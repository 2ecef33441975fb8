"""A large model's first layers are quantized before the whole is: what fails there ends the cell at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from trained import RECIPE

from quantlab.errors import CellFailure, FailureKind
from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.models.tiny import family, write_model
from quantlab.progress import Progress
from quantlab.records import Failure, QuantizeRecord
from quantlab.stages import _rehearsal, prepare
from quantlab.stages._rehearsal import rehearse_cell, rehearse_conversion
from quantlab.stages.isolation import run_isolated
from quantlab.workspace.cell import Cell

pytestmark = pytest.mark.slow
QUIET = Progress(quiet=True)
LAYERS = 24
VARIANTS: dict[str, dict[str, Any]] = {"bitsandbytes-8": {}, "baseline-16": {}, "gguf-4": {}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose model has many layers beside a small embedding, above the limit."""
    root = tmp_path_factory.mktemp("rehearsal")
    deep = family("llama")
    deep = deep._replace(fields={**deep.fields, "num_hidden_layers": LAYERS, "intermediate_size": 768})
    recipe = RECIPE | {
        "model": "deep",
        "source": {"path": str(write_model(deep, root / "tiny"))},
        "variants": VARIANTS,
        "rehearsal_above_parameters": 1_000_000,
    }
    write_text(root / "recipes" / "deep.yaml", yaml.safe_dump(recipe))
    prepare.run(root, "deep", QUIET)
    return root


def _ends_with(monkeypatch: pytest.MonkeyPatch, kind: FailureKind | None) -> list[tuple[Path, str]]:
    """Let the copy's own stage end so; returns the copies that were rehearsed."""
    seen: list[tuple[Path, str]] = []

    def run(cell: Cell, stage: str, device: str, quiet: bool) -> QuantizeRecord:
        source = cell.prepared.source()
        seen.append((cell.root, stage))
        assert source.parameters < 0.25 * 20_000_000 and cell.recipe.rehearsal_above_parameters is None
        assert cell.prepared.token_ids("calibration").shape == (8, 256)
        failure = Failure(kind=kind, reason="the library stops at this layer") if kind else None
        return QuantizeRecord(model=cell.model, variant=cell.variant.slug, failure=failure)

    monkeypatch.setattr(_rehearsal, "run_isolated", run)
    return seen


@pytest.mark.parametrize("kind", ["unsupported", "broken_checkpoint", "crashed"])
def test_what_fails_on_the_first_layers_ends_the_cell(
    kind: FailureKind, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _ends_with(monkeypatch, kind)
    with pytest.raises(CellFailure) as raised:
        rehearse_cell(Cell(root, "deep", "bitsandbytes-8"), find("cpu"), QUIET)
    assert raised.value.kind == kind
    assert raised.value.reason == f"on the first 2 of {LAYERS} layers alone: the library stops at this layer"
    assert [stage for _, stage in seen] == ["quantize"] and not seen[0][0].exists()


@pytest.mark.parametrize("kind", [None, "out_of_memory", "killed", "disk_full"])
def test_what_says_nothing_of_the_method_does_not(
    kind: FailureKind | None, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _ends_with(monkeypatch, kind)
    made = rehearse_cell(Cell(root, "deep", "bitsandbytes-8"), find("cpu"), QUIET)
    assert made.seconds and made.seconds > 0 and made.notes == () and len(seen) == 1


@pytest.mark.parametrize("slug", ["baseline-16", "gguf-4"])
def test_nothing_is_rehearsed_where_nothing_is_quantized_from_the_source(
    slug: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _ends_with(monkeypatch, "unsupported")
    assert rehearse_cell(Cell(root, "deep", slug), find("cpu"), QUIET).seconds is None and not seen


@pytest.mark.parametrize("limit", [None, 10**9])
def test_the_recipe_leaves_it_out(limit: int | None, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, path = _ends_with(monkeypatch, "unsupported"), root / "recipes" / "deep.yaml"
    before = path.read_text()
    write_text(path, yaml.safe_dump(yaml.safe_load(before) | {"rehearsal_above_parameters": limit}))
    try:
        cell = Cell(root, "deep", "bitsandbytes-8")
        assert rehearse_cell(cell, find("cpu"), QUIET).seconds is None and not seen
    finally:
        write_text(path, before)


def test_a_copy_that_costs_too_much_is_not_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _ends_with(monkeypatch, "unsupported")
    monkeypatch.setattr(_rehearsal, "LARGEST_SHARE", 0.01)
    made = rehearse_cell(Cell(root, "deep", "bitsandbytes-8"), find("cpu"), QUIET)
    assert made.seconds is None and not seen
    assert "every kind of layer is only in the first 2 of 24" in made.notes[0]


@pytest.mark.engines
def test_a_whole_run_rehearses_and_says_how_long_it_took(root: Path) -> None:
    record = run_isolated(Cell(root, "deep", "bitsandbytes-8"), "quantize", "cpu", quiet=True)
    assert isinstance(record, QuantizeRecord) and record.failure is None
    assert record.rehearsal_seconds and record.quantized_layers == 7 * LAYERS


@pytest.mark.engines
def test_a_conversion_is_rehearsed_too(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = Cell(root, "deep", "gguf-4").recipe
    rehearse_conversion(root, "deep", recipe, tmp_path / "log", QUIET)
    monkeypatch.setattr("quantlab.methods._gguf.converter.SCRIPT", "no_such_script.py")
    with pytest.raises(CellFailure, match=f"on the first 2 of {LAYERS} layers alone: llama.cpp cannot"):
        rehearse_conversion(root, "deep", recipe, tmp_path / "log", QUIET)
