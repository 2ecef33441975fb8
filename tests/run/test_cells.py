"""What dvc.yaml reads of a cell."""

from __future__ import annotations

from pathlib import Path

import yaml

from quantlab.run.workspace import _cell

ROOT = Path(__file__).resolve().parents[2]
CELLS = {"m--baseline-16", "m--gguf-16", "m--gptq-4", "m--gguf-4"}


def test_a_variant_is_measured_beside_the_16_bit_variant_of_its_engine() -> None:
    beside = {
        slug: _cell("m", slug, CELLS)["beside"]
        for slug in ("gptq-4", "gguf-4", "baseline-16", "gguf-16", "awq-4-ext_0a1b2c")
    }
    assert beside["gptq-4"] == beside["awq-4-ext_0a1b2c"] == "checkpoints/m/baseline-16/manifest.json"
    assert beside["gguf-4"] == "checkpoints/m/gguf-16/manifest.json"
    assert (beside["baseline-16"], beside["gguf-16"]) == ("models/m/source", "models/m/gguf")


def test_a_cell_without_its_16_bit_variant_depends_on_nothing_that_no_stage_makes() -> None:
    assert _cell("m", "gguf-4", {"m--gguf-4", "other--gguf-16"})["beside"] == "models/m/gguf"


def test_the_demos_cells_are_what_a_run_would_write() -> None:
    cells = yaml.safe_load((ROOT / "params.yaml").read_text())["cells"]
    assert {name: _cell(cell["model"], cell["variant"], cells) for name, cell in cells.items()} == cells
