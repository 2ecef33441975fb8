"""A variant that loses far more than plain rounding is marked, with both figures, wherever it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL, write_cell, write_recipe

from quantlab.comparison.compare import Comparison, compare
from quantlab.comparison.load import load_model
from quantlab.comparison.nearest import compare_nearest
from quantlab.records import DivergenceRecord, RoundToNearest
from quantlab.reporting.divergences import divergence_table
from quantlab.reporting.findings import findings
from quantlab.reporting.summary import summary_table
from quantlab.reporting.terminal import summary
from quantlab.workspace.results import read_record, record_path, write_record

FAULTY = (4.14, 1.63)
"""AWQ at 4 bits on a Qwen3.5 whose norms of 1 + w are taken for w, and rounding at the same group size."""
RIGHT = {
    "awq-4": (0.178, 0.285),
    "gptq-4": (0.194, 0.426),
    "gptq-3": (0.823, 1.63),
    "gptq-2": (6.87, 11.3),
    "gguf-4": (0.0351, 0.285),
    "gguf-2": (0.300, 7.35),
}
"""Of SmolLM2-135M, measured: the variant, and rounding on its grid."""


def _rounded(bits: int, figures: tuple[float, float], group_size: int = 32) -> RoundToNearest:
    return RoundToNearest(
        bits=bits,
        group_size=group_size,
        symmetric=False,
        windows=4,
        kinds=("linears",),
        variant_kl_divergence_nats=figures[0],
        kl_divergence_nats=figures[1],
    )


def _write(root: Path, slug: str, rounded: RoundToNearest | None, reason: str | None = None) -> None:
    write_cell(root, slug)
    record = read_record(record_path(root, MODEL, slug, "diverge"), DivergenceRecord)
    assert record
    write_record(
        root, record.model_copy(update={"round_to_nearest": rounded, "round_to_nearest_reason": reason})
    )


def _compared(root: Path, faulty: tuple[float, float] | None) -> Comparison:
    write_recipe(root)
    write_cell(root, "baseline-16")
    for slug, figures in RIGHT.items():
        bits = int(slug.split("-")[1])
        _write(root, slug, _rounded(bits, faulty if faulty and slug == "awq-4" else figures))
    _write(root, "gguf-3", None, "rounding to nearest was not measured: it does not fit")
    return compare(load_model(root, MODEL))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return _compared(tmp_path_factory.mktemp("suspicious"), FAULTY)


def test_variants_that_are_right_are_not_suspicious(tmp_path: Path) -> None:
    comparison = _compared(tmp_path, None)
    assert all(variant.nearest.suspicion is None for variant in comparison.variants.values())
    assert not any("uspicious" in sentence for sentence in findings(comparison))


def test_both_figures_in_findings_table_and_terminal(comparison: Comparison) -> None:
    assert findings(comparison)[1].startswith(
        "**Suspicious**: awq-4 (4.14 nats, rounding to nearest 1.63) lost far more than plain rounding"
    )
    summarized = {row.values["variant"]: row for row in summary_table(comparison).rows}
    assert summarized["awq-4"].values["status"] == "suspicious"
    assert summarized["awq-4"].notes[0] == (
        "suspicious: it diverges by 4.14 nats, plain rounding to nearest at 4 bits with groups of 32 by 1.63"
        " nats on the same windows"
    )
    table = divergence_table(comparison)
    assert "1.63 (2.54×) suspicious" in table.markdown()
    cells = [str(cell) for column in summary(comparison).columns for cell in column.cells]
    assert "suspicious" in cells and any("rounding 1.63" in cell for cell in cells)


def test_why_there_is_no_figure(comparison: Comparison) -> None:
    rows = {row.values["variant"]: row for row in divergence_table(comparison).rows}
    assert "does not fit" in rows["gguf-3"].missing["rounding_kl_divergence_nats"]
    assert "4 bits and fewer" in rows["baseline-16"].missing["rounding_kl_divergence_nats"]


@pytest.mark.parametrize(("nats", "suspicious"), [(0.02, False), (0.024, False), (0.026, True)])
def test_noise_of_engines_is_allowed_for(tmp_path: Path, nats: float, suspicious: bool) -> None:
    write_recipe(tmp_path)
    _write(tmp_path, "awq-4", _rounded(4, (nats, 0.01)))
    variant = load_model(tmp_path, MODEL).variants["awq-4"]
    assert (compare_nearest(variant).suspicion is not None) is suspicious
