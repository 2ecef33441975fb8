"""The divergence of plain rounding is measured beside a variant of few bits, once for each grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from trained import RECIPE, trained_llama

from quantlab.comparison.nearest import NOISE_NATS, SUSPICIOUS_TIMES
from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.progress import Progress
from quantlab.records import DivergenceRecord
from quantlab.stages import _nearest, diverge, prepare, quantize, reference
from quantlab.workspace.cell import Cell

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nearest")
    recipe = RECIPE | {
        "model": "small",
        "source": {"path": str(trained_llama())},
        "variants": {"bitsandbytes-4": {}, "bitsandbytes-8": {}},
        "tasks": {"set": "embedded", "names": ["copa"], "items": 4},
    }
    write_text(root / "recipes" / "small.yaml", yaml.safe_dump(recipe))
    prepare.run(root, "small", QUIET)
    reference.run(root, "small", find("cpu"), QUIET)
    for slug in ("bitsandbytes-4", "bitsandbytes-8"):
        quantize.run(Cell(root, "small", slug), find("cpu"), QUIET)
    return root


@pytest.fixture(scope="module")
def record(root: Path) -> DivergenceRecord:
    return diverge.run(Cell(root, "small", "bitsandbytes-4"), find("cpu"), QUIET)


def test_beside_a_variant_of_4_bits(record: DivergenceRecord) -> None:
    rounded = record.round_to_nearest
    assert rounded and record.round_to_nearest_reason is None
    assert (rounded.bits, rounded.group_size, rounded.symmetric) == (4, 64, True)
    assert rounded.kinds == ("linears",) and rounded.windows == record.windows == 4
    assert record.kl_divergence_nats
    assert rounded.variant_kl_divergence_nats == pytest.approx(record.kl_divergence_nats.value, rel=1e-5)
    # both lie within the engine's noise on this model, where no ratio is evidence
    assert 0 < rounded.kl_divergence_nats < NOISE_NATS
    assert rounded.variant_kl_divergence_nats < SUSPICIOUS_TIMES * rounded.kl_divergence_nats + NOISE_NATS


def test_not_at_8_bits(root: Path) -> None:
    record = diverge.run(Cell(root, "small", "bitsandbytes-8"), find("cpu"), QUIET)
    assert record.round_to_nearest is None and record.round_to_nearest_reason is None


def test_computed_once_for_each_grid(
    root: Path, record: DivergenceRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*_: Any) -> Any:
        raise AssertionError("rounded again")

    monkeypatch.setattr(_nearest._Rounded, "_model", again)
    assert diverge.run(Cell(root, "small", "bitsandbytes-4"), find("cpu"), QUIET) == record


def test_memory_that_runs_out_leaves_the_variants_figures(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(_nearest._Rounded, "_model", full)
    monkeypatch.setattr(_nearest, "WINDOWS", 3)
    record = diverge.run(Cell(root, "small", "bitsandbytes-4"), find("cpu"), QUIET)
    assert record.kl_divergence_nats and record.round_to_nearest is None
    assert record.round_to_nearest_reason == "rounding to nearest was not measured: CUDA out of memory"


def test_what_does_not_fit_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nearest, "_MORE_MEMORY", 1e9)
    record = diverge.run(Cell(root, "small", "bitsandbytes-4"), find("cpu"), QUIET)
    assert record.round_to_nearest is None and record.kl_divergence_nats
    assert record.round_to_nearest_reason
    assert "rounding to nearest was not measured: the unquantized model" in record.round_to_nearest_reason
