"""`quantlab compare` checks checkpoints before it runs, and says where each came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import save_file

from quantlab.models.tiny import write_tiny_model


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model("llama", tmp_path_factory.mktemp("compare") / "base")


def _checkpoint(base: Path, name: str, said: dict[str, object]) -> str:
    folder = base.parent / name
    folder.mkdir()
    config = json.loads((base / "config.json").read_text()) | {"quantization_config": said}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {"model.layers.0.a.qweight": torch.zeros(2, 2, dtype=torch.int32)}, folder / "model.safetensors"
    )
    return str(folder)


def test_each_checkpoint_becomes_a_variant_beside_the_baseline(
    base: Path, quantlab: Callable[..., Result]
) -> None:
    awq = _checkpoint(base, "awq", {"quant_method": "awq", "bits": 4})
    modelopt = _checkpoint(base, "modelopt", {"quant_method": "modelopt", "quant_algo": "NVFP4"})
    done = json.loads(quantlab("compare", str(base), awq, modelopt, "--no-run", "--json").stdout)
    assert done["variants"][0] == "baseline-16" and done["report"] is None
    assert {slug.rpartition("_")[0] for slug in done["checkpoints"]} == {"awq-4-ext", "modelopt-4-ext"}
    first = next(about for slug, about in done["checkpoints"].items() if slug.startswith("awq"))
    assert Path(first["checkpoint"]) == base.parent / "awq" and first["hub"] is None and first["notes"] == []


def test_a_format_that_is_not_read_is_refused_before_anything_is_written(
    base: Path, refused: Callable[..., str]
) -> None:
    hqq = _checkpoint(base, "hqq", {"quant_method": "hqq", "bits": 4})
    assert "unknown quantization format 'hqq'" in refused("compare", str(base), hqq)
    assert not Path("runs").exists()
    assert "Missing argument" in refused("compare", str(base))


def test_a_method_that_only_reads_quantizes_nothing(base: Path, refused: Callable[..., str]) -> None:
    said = "modelopt only reads checkpoints that others made: name one with --checkpoint"
    assert said in refused("run", str(base), "--method", "modelopt")
    assert said in refused("run", str(base), "--method", "modelopt", "--bits", "4")
