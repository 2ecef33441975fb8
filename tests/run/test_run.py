"""The whole line, end to end, as a user types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from trained import RECIPE

from quantlab.run.workspace import environment

Quantlab = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.slow


def _records(workspace: Path, model: str, stage: str) -> dict[str, Any]:
    return {
        p.parent.name: json.loads(p.read_text())
        for p in (workspace / "reports" / model / "data").glob(f"*/{stage}.json")
    }


def test_the_demo_in_short(quantlab: Quantlab, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    grid = ["--method", "gguf", "--method", "bitsandbytes", "--bits", "4", "--bits", "3"]
    arguments = ("run", "smollm2", "--recipe", "recipe.yaml", *grid)
    found = quantlab(*arguments)
    workspace, model = Path(found["workspace"]), found["model"]

    quantize, divergence = _records(workspace, model, "quantize"), _records(workspace, model, "divergence")
    assert set(quantize) == set(divergence) == set(found["variants"])
    assert quantize["bitsandbytes-3"]["failure"]["kind"] == "not_offered"
    assert divergence["bitsandbytes-3"]["failure"]["kind"] == "not_measured"
    done = [v for v in quantize if v != "bitsandbytes-3"]
    assert not any(r["failure"] for v in done for r in (quantize[v], divergence[v]))

    def kl(variant: str) -> float:
        return float(divergence[variant]["kl_divergence_nats"]["value"])

    assert kl("gguf-16") < 1e-4 and kl("gguf-16") < kl("gguf-4") < kl("gguf-3")
    size = {v: quantize[v]["disk_bytes"] for v in done}
    assert size["gguf-16"] > size["gguf-4"] > size["gguf-3"]
    report = Path(found["report"]).read_text()
    assert "bitsandbytes does not offer 3 bits" in report and "gguf-4" in report

    # nothing changed: nothing but the probe runs again
    again = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert "Running stage 'quantize" not in again.stdout and "Running stage 'measure" not in again.stdout

    # a record or a checkpoint that was removed is made again, and nothing else
    shutil.rmtree(workspace / "checkpoints" / model / "gguf-4")
    third = quantlab(*arguments)
    assert (
        third["report"] == found["report"]
        and (workspace / "checkpoints" / model / "gguf-4" / "model.gguf").exists()
    )


def test_the_cards_command_verbatim(quantlab: Quantlab, qwen: Path, tmp_path: Path) -> None:
    alias = {"qwen3.5-72b": {"path": str(qwen), "license": "none", "note": "random weights"}}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(alias))
    (tmp_path / "recipes").mkdir()
    settings = {"variants": {"awq-4": {"group_size": 64}}, "model": "qwen3.5-72b"}
    (tmp_path / "recipes" / "qwen3.5-72b.yaml").write_text(yaml.safe_dump(RECIPE | settings))
    found = quantlab("run", "qwen3.5-72b", "--method", "awq", "--bits", "4")
    records = _records(Path(found["workspace"]), "qwen3.5-72b", "quantize")
    assert records["awq-4"]["failure"] is None, records["awq-4"]
    assert records["awq-4"]["quantized_layers"] == records["awq-4"]["expected_layers"] > 0
    assert "awq-4" in Path(found["report"]).read_text()

    # GPTQModel leaves the gates of linear attention as they are: they are named, and loaded as they are
    found = quantlab("run", "qwen3.5-72b", "--method", "gptq", "--bits", "4")
    records = _records(Path(found["workspace"]), "qwen3.5-72b", "quantize")
    assert records["gptq-4"]["failure"] is None, records["gptq-4"]
    for variant, key in (("awq-4", "modules_to_not_convert"), ("gptq-4", "modules_in_block_to_quantize")):
        config = json.loads(
            (Path(found["workspace"]) / "checkpoints/qwen3.5-72b" / variant / "config.json").read_text()
        )
        named = str(config["quantization_config"][key])
        assert ("in_proj_a" in named) == (variant == "awq-4") and ("in_proj_qkv" in named) == (
            variant == "gptq-4"
        )
        assert any("unquantized" in note for note in records[variant]["notes"])
