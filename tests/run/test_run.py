"""The whole line, end to end, as a user types it: one workspace, to which each test adds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from trained import RECIPE

from quantlab.run.workspace import environment

Quantlab = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.slow
MODEL = "qwen3.5-72b"


def _records(workspace: Path, model: str, stage: str) -> dict[str, Any]:
    return {
        p.parent.name: json.loads(p.read_text())
        for p in (workspace / "reports" / model / "data").glob(f"*/{stage}.json")
    }


class Typed(NamedTuple):
    """A folder in which the card's command was typed, and what it printed."""

    folder: Path
    said: dict[str, Any]

    @property
    def workspace(self) -> Path:
        return Path(self.said["workspace"])

    def records(self, stage: str) -> dict[str, Any]:
        return _records(self.workspace, MODEL, stage)


@pytest.fixture(scope="module")
def typed(run_quantlab: Quantlab, qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Typed:
    folder = tmp_path_factory.mktemp("typed")
    alias = {MODEL: {"path": str(qwen), "license": "none", "note": "random weights"}}
    (folder / "models.yaml").write_text(yaml.safe_dump(alias))
    (folder / "recipes").mkdir()
    variants = {"awq-4": {"group_size": 64, "calibration_windows": 2}}
    recipe = RECIPE | {"variants": variants, "model": MODEL}
    (folder / "recipes" / f"{MODEL}.yaml").write_text(yaml.safe_dump(recipe))
    return Typed(folder, run_quantlab(folder, "run", MODEL, "--method", "awq", "--bits", "4"))


MORE = ("--method", "gguf", "--method", "bitsandbytes", "--bits", "3")


@pytest.fixture(scope="module")
def extended(run_quantlab: Quantlab, typed: Typed) -> Typed:
    """The same folder after variants of another engine, and one that its method does not offer, joined."""
    return Typed(typed.folder, run_quantlab(typed.folder, "run", MODEL, *MORE))


def test_the_cards_command_verbatim(typed: Typed) -> None:
    record = typed.records("quantize")["awq-4"]
    assert record["failure"] is None, record
    assert record["quantized_layers"] == record["expected_layers"] > 0
    assert "awq-4" in Path(typed.said["report"]).read_text()


def test_every_stage_leaves_its_record(extended: Typed) -> None:
    quantize, divergence = extended.records("quantize"), extended.records("divergence")
    assert set(quantize) == set(divergence) == {"baseline-16", "awq-4", "gguf-16", "gguf-3", "bitsandbytes-3"}
    assert set(extended.said["variants"]) < set(quantize)
    done = [v for v in quantize if v != "bitsandbytes-3"]
    everything = [extended.records(stage) for stage in ("quantize", "measure", "divergence", "tasks")]
    assert not any(records[v]["failure"] for v in done for records in everything)
    assert quantize["gguf-16"]["disk_bytes"] > quantize["gguf-3"]["disk_bytes"]
    kl = {v: float(divergence[v]["kl_divergence_nats"]["value"]) for v in done}
    assert kl["gguf-16"] < kl["gguf-3"]


def test_what_a_method_does_not_offer_is_recorded_and_said(extended: Typed) -> None:
    assert extended.records("quantize")["bitsandbytes-3"]["failure"]["kind"] == "not_offered"
    assert extended.records("divergence")["bitsandbytes-3"]["failure"]["kind"] == "not_measured"
    report = Path(extended.said["report"]).read_text()
    assert "bitsandbytes does not offer 3 bits" in report and "gguf-3" in report


def test_nothing_runs_again_where_nothing_changed(extended: Typed) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=extended.workspace,
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert "Running stage 'quantize" not in again.stdout and "Running stage 'measure" not in again.stdout


def test_a_checkpoint_that_was_removed_is_made_again(run_quantlab: Quantlab, extended: Typed) -> None:
    checkpoint = extended.workspace / "checkpoints" / MODEL / "gguf-3"
    shutil.rmtree(checkpoint)
    said = run_quantlab(extended.folder, "run", MODEL, *MORE)
    assert said["report"] == extended.said["report"] and (checkpoint / "model.gguf").exists()


@pytest.mark.engines
def test_the_demo_in_short(quantlab: Quantlab, tmp_path: Path) -> None:
    """The embedded default, a real model, at two widths of two methods."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    grid = ["--method", "gguf", "--method", "bitsandbytes", "--bits", "4", "--bits", "3"]
    said = quantlab("run", "smollm2", "--recipe", "recipe.yaml", *grid)
    workspace, model = Path(said["workspace"]), said["model"]

    quantize, divergence = _records(workspace, model, "quantize"), _records(workspace, model, "divergence")
    assert set(quantize) == set(divergence) == set(said["variants"])
    done = [v for v in quantize if v != "bitsandbytes-3"]
    assert not any(r["failure"] for v in done for r in (quantize[v], divergence[v]))
    kl = {v: float(divergence[v]["kl_divergence_nats"]["value"]) for v in done}
    assert kl["gguf-16"] < 1e-4 and kl["gguf-16"] < kl["gguf-4"] < kl["gguf-3"]
    size = {v: quantize[v]["disk_bytes"] for v in done}
    assert size["gguf-16"] > size["gguf-4"] > size["gguf-3"]
