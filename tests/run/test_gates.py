"""The gates of linear attention stay unquantized under GPTQModel: they are named in the checkpoint's config and
in the record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from trained import RECIPE
from verifying import reload_here

from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.progress import Progress
from quantlab.records import QuantizeRecord
from quantlab.stages import prepare, quantize
from quantlab.workspace.cell import Cell

pytestmark = pytest.mark.slow
QUIET = Progress(quiet=True)
VARIANTS: dict[str, dict[str, Any]] = {
    "awq-4": {"group_size": 64, "calibration_windows": 1},
    "gptq-4": {"group_size": 64},
}


@pytest.fixture(scope="module")
def root(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("gates")
    recipe = RECIPE | {"model": "tiny", "source": {"path": str(qwen)}, "variants": VARIANTS}
    write_text(folder / "recipes" / "tiny.yaml", yaml.safe_dump(recipe))
    prepare.run(folder, "tiny", QUIET)
    with pytest.MonkeyPatch.context() as monkeypatch:
        reload_here(monkeypatch)
        yield folder


def quantized(root: Path, slug: str) -> tuple[QuantizeRecord, dict[str, Any]]:
    """The record of a variant and its checkpoint's quantization_config."""
    cell = Cell(root, "tiny", slug)
    record = quantize.run(cell, find("cpu"), QUIET)
    assert record.failure is None, record
    config = json.loads((cell.checkpoint_folder / "config.json").read_text())
    return record, config["quantization_config"]


def test_awq_names_the_gates_as_unconverted(root: Path) -> None:
    record, config = quantized(root, "awq-4")
    named = str(config["modules_to_not_convert"])
    assert "in_proj_a" in named and "in_proj_qkv" not in named
    assert any("unquantized" in note for note in record.notes)
    assert config["zero_point"] is True  # vLLM's AWQ kernels read 4 bits with zero points alone


def test_gptq_names_what_it_quantizes_and_not_the_gates(root: Path) -> None:
    record, config = quantized(root, "gptq-4")
    named = str(config["modules_in_block_to_quantize"])
    assert "in_proj_qkv" in named and "in_proj_a" not in named
    assert any("unquantized" in note for note in record.notes)
