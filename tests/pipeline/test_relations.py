"""On a small trained model: more bits, not more divergence; fewer bits, fewer bytes; the same seed, the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from trained import RECIPE, trained_llama

pytestmark = pytest.mark.slow
GROUP = {"group_size": 64}
VARIANTS = {
    **{f"gguf-{bits}": {} for bits in (16, 8, 4, 3, 2)},
    **{f"gptq-{bits}": GROUP for bits in (8, 4, 3, 2)},
    **{f"awq-{bits}": GROUP for bits in (4, 3)},
    **{f"autoround-{bits}": {"group_size": 32, "iterations": 20, "samples": 8} for bits in (4, 2)},
    "bitsandbytes-8": {},
    "bitsandbytes-4": {},
    "fp8-8": {},
    "gptq-4-again": GROUP,
    "awq-4-again": GROUP,
}


class Results(NamedTuple):
    workspace: Path
    model: str

    def record(self, variant: str, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.workspace / "reports" / self.model / "data" / variant / f"{stage}.json").read_text())
        return found

    def kl(self, variant: str) -> float:
        record = self.record(variant, "divergence")
        assert record["failure"] is None, record["failure"]
        return float(record["kl_divergence_nats"]["value"])

    def hashes(self, variant: str) -> dict[str, str]:
        files = json.loads((self.workspace / "checkpoints" / self.model / variant / "manifest.json").read_text())["files"]
        return {name: entry["sha256"] for name, entry in files.items() if name.endswith((".safetensors", ".gguf"))}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, run_quantlab: Callable[..., dict[str, Any]]) -> Results:
    folder = tmp_path_factory.mktemp("relations")
    evaluation = {"text": "embedded", "windows": 8, "length": 128}
    recipe = RECIPE | {"variants": VARIANTS, "calibration": {"text": "embedded", "windows": 16, "length": 128}, "evaluation": evaluation}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    found = run_quantlab(folder, "run", str(trained_llama()), "--recipe", "recipe.yaml")
    return Results(Path(found["workspace"]), found["model"])


@pytest.mark.parametrize("method", ["gguf", "gptq", "awq", "autoround", "bitsandbytes"])
def test_more_bits_are_not_worse_and_fewer_bits_are_fewer_bytes(results: Results, method: str) -> None:
    variants = [v for v in VARIANTS if v.rsplit("-", 1)[0] == method and v != "gguf-16"]
    divergence = [results.kl(v) for v in variants]
    sizes = [results.record(v, "quantize")["disk_bytes"] for v in variants]
    assert len(variants) >= 2
    assert divergence == sorted(divergence), dict(zip(variants, divergence, strict=True))
    assert sizes == sorted(sizes, reverse=True), dict(zip(variants, sizes, strict=True))


def test_f16_gguf_is_the_safetensors_model(results: Results) -> None:
    assert results.kl("gguf-16") < 1e-4


def test_eight_bits_are_close(results: Results) -> None:
    assert all(results.kl(v) < 0.05 for v in ("gguf-8", "gptq-8", "bitsandbytes-8", "fp8-8"))


def test_learned_rounding_holds_at_two_bits_where_gptq_collapses(results: Results) -> None:
    assert results.kl("autoround-2") < results.kl("gptq-2")


@pytest.mark.parametrize("variant", ["gptq-4", "awq-4"])
def test_the_same_seed_gives_the_same_bytes(results: Results, variant: str) -> None:
    assert results.hashes(variant) == results.hashes(f"{variant}-again") != {}


@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.startswith("gguf")])
def test_every_checkpoint_reloads_as_it_was_in_memory(results: Results, variant: str) -> None:
    record = results.record(variant, "quantize")
    assert record["failure"] is None and record["quantized_layers"] == record["expected_layers"] == 28
    assert abs(record["loss_reloaded_nats"] - record["loss_in_memory_nats"]) <= record["loss_tolerance_nats"]
