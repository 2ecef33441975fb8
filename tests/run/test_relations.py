"""On a small trained model: more bits, not more divergence; fewer bits, fewer bytes; the same seed, the same
bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from trained import RECIPE, trained_llama
from verifying import reload_here

from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.progress import Progress
from quantlab.records import QuantizeRecord
from quantlab.stages import convert, diverge, prepare, quantize, reference
from quantlab.workspace.cell import Cell

pytestmark = pytest.mark.slow
GROUP = {"group_size": 64}
AWQ = GROUP | {"calibration_windows": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"gguf-{bits}": {} for bits in (16, 8, 4, 3, 2)},
    **{f"gptq-{bits}": GROUP for bits in (8, 4, 2)},
    **{f"awq-{bits}": AWQ for bits in (4, 3)},
    **{f"autoround-{bits}": {"group_size": 32, "iterations": 4, "samples": 4} for bits in (4, 2)},
    "bitsandbytes-8": {},
    "bitsandbytes-4": {},
    "fp8-8": {},
    "gptq-4-again": GROUP,
    "awq-4-again": AWQ,
    "fp8-8-again": {},
}


def _marked(*names: str) -> list[Any]:
    """Test's arguments; what calibrates longest is in `make test-engines`."""
    slow = ("awq", "autoround")
    return [
        pytest.param(name, marks=pytest.mark.engines) if name.startswith(slow) else name for name in names
    ]


class Results:
    """Checkpoints and divergences of variants, made by the stages in this process where they are asked for."""

    def __init__(self, root: Path) -> None:
        recipe = RECIPE | {
            "model": "small",
            "source": {"path": str(trained_llama())},
            "variants": VARIANTS,
            "calibration": {"text": "embedded", "windows": 16, "length": 128},
            "evaluation": {"text": "embedded", "windows": 8, "length": 128},
        }
        write_text(root / "recipes" / "small.yaml", yaml.safe_dump(recipe))
        self.root, self._device, self._quiet = root, find("cpu"), Progress(quiet=True)
        prepare.run(root, "small", self._quiet)
        convert.run(root, "small", root / "convert.log", self._quiet)
        reference.run(root, "small", self._device, self._quiet)
        self._quantized: dict[str, QuantizeRecord] = {}
        self._nats: dict[str, float] = {}

    def quantized(self, variant: str) -> QuantizeRecord:
        if variant not in self._quantized:
            cell = Cell(self.root, "small", variant)
            self._quantized[variant] = quantize.run(cell, self._device, self._quiet)
        return self._quantized[variant]

    def kl(self, variant: str) -> float:
        if variant not in self._nats:
            self.quantized(variant)
            cell = Cell(self.root, "small", variant)
            found = diverge.run(cell, self._device, self._quiet).kl_divergence_nats
            assert found is not None
            self._nats[variant] = found.value
        return self._nats[variant]

    def hashes(self, variant: str) -> dict[str, str]:
        self.quantized(variant)
        files = Cell(self.root, "small", variant).checkpoint().manifest.files
        return {name: entry.sha256 for name, entry in files.items()}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    with pytest.MonkeyPatch.context() as monkeypatch:
        reload_here(monkeypatch)
        return Results(tmp_path_factory.mktemp("relations"))


@pytest.mark.parametrize("method", _marked("gguf", "gptq", "awq", "autoround", "bitsandbytes"))
def test_more_bits_are_not_worse_and_fewer_bits_are_fewer_bytes(results: Results, method: str) -> None:
    variants = [v for v in VARIANTS if v.rsplit("-", 1)[0] == method and v != "gguf-16"]
    divergence = [results.kl(v) for v in variants]
    sizes = [results.quantized(v).disk_bytes for v in variants]
    assert len(variants) >= 2
    assert divergence == sorted(divergence), dict(zip(variants, divergence, strict=True))
    assert sizes == sorted(sizes, reverse=True), dict(zip(variants, sizes, strict=True))


def test_f16_gguf_is_the_safetensors_model(results: Results) -> None:
    assert results.kl("gguf-16") < 1e-4


def test_eight_bits_are_close(results: Results) -> None:
    assert all(results.kl(v) < 0.05 for v in ("gguf-8", "gptq-8", "bitsandbytes-8", "fp8-8"))


@pytest.mark.parametrize("variant", _marked("gptq-4", "awq-4", "fp8-8"))
def test_the_same_seed_gives_the_same_bytes(results: Results, variant: str) -> None:
    assert results.hashes(variant) == results.hashes(f"{variant}-again") != {}


@pytest.mark.parametrize("variant", _marked(*(v for v in VARIANTS if not v.startswith("gguf"))))
def test_every_checkpoint_reloads_as_it_was_in_memory(results: Results, variant: str) -> None:
    record = results.quantized(variant)
    assert record.failure is None and record.quantized_layers == record.expected_layers
    assert record.quantized_layers == (0 if variant == "baseline-16" else 28)
    assert (
        record.loss_in_memory_nats is not None
        and record.loss_reloaded_nats is not None
        and record.loss_tolerance_nats is not None
    )
    assert abs(record.loss_reloaded_nats - record.loss_in_memory_nats) <= record.loss_tolerance_nats
