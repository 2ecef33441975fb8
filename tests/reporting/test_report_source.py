"""What the reference is stands in the report's first lines: quantized already, or wider than 16 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL, PARAMETERS, write_cell, write_recipe

from quantlab.comparison.compare import compare
from quantlab.comparison.load import ModelRecords, load_model
from quantlab.names import parse_variant
from quantlab.records import QuantizeRecord
from quantlab.reporting.findings import findings
from quantlab.reporting.markdown import _caveat
from quantlab.reporting.provenance import Fact, published
from quantlab.workspace.prepared import Source
from quantlab.workspace.results import read_record, record_path, write_record


def _wide(root: Path, other_bytes: int = 1_000_000) -> ModelRecords:
    """A baseline of float32, and a variant at 4 bits."""
    write_recipe(root)
    for slug in ("baseline-16", "gptq-4", "gguf-4"):
        write_cell(root, slug)
    made = read_record(record_path(root, MODEL, "baseline-16", "quantize"), QuantizeRecord)
    assert made
    stored = 4 * PARAMETERS
    wide = {"stored_bytes": stored, "disk_bytes": stored + other_bytes, "bits_per_weight": 32.0}
    write_record(root, made.model_copy(update=wide))
    return load_model(root, MODEL)


def test_a_float32_baseline_is_said_and_savings_are_against_16_bits(tmp_path: Path) -> None:
    comparison = compare(_wide(tmp_path))
    variants = comparison.variants
    size, sixteen = variants["gptq-4"].disk.bytes, 2 * PARAMETERS + 1_000_000
    assert size and variants["gptq-4"].disk.share == pytest.approx(1 - size / sixteen)
    assert variants["baseline-16"].disk.share == pytest.approx(1 - (4 * PARAMETERS + 1_000_000) / sixteen)
    said = findings(comparison)
    assert said[1].startswith(
        "baseline-16 stores 32.0 bits per weight, as its source does: disk saved is against"
    )
    assert any("less than the model at 16 bits" in sentence for sentence in said)


def test_float32_norms_are_no_wide_baseline(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_cell(tmp_path, "baseline-16")
    said = findings(compare(load_model(tmp_path, MODEL)))
    assert not any("bits per weight, as its source" in sentence for sentence in said)


@pytest.mark.parametrize(("stored_as", "said"), [("Q4_K_M", True), (None, False)])
def test_a_source_that_was_quantized_is_said_with_its_format(
    tmp_path: Path, stored_as: str | None, said: bool
) -> None:
    write_recipe(tmp_path)
    write_cell(tmp_path, "baseline-16")
    source = Source(
        model=MODEL, kind="gguf", name="m.gguf", files={}, parameters=8, dtype="bfloat16", vocabulary=4,
        quantized_as=stored_as,
    )  # fmt: skip
    caveat = _caveat(load_model(tmp_path, MODEL)._replace(source=source))
    assert caveat.startswith("The weights of this reference were quantized once already (Q4_K_M)") is said
    assert caveat.endswith("These records were made up by a test.")


def test_the_caveat_stands_before_the_findings(report: Path) -> None:
    text = (report / "report.md").read_text()
    assert text.index("> These records were made up by a test.") < text.index("variants of")


def test_differences_of_a_published_checkpoint_have_a_place(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_cell(tmp_path, "gptq-4")
    records = load_model(tmp_path, MODEL)
    assert published(records) == []
    own = records.variants["gptq-4"]
    assert own.quantize
    said = own.quantize.model_copy(update={"notes": ("Its chat template is another.", "It says so.")})
    theirs = own._replace(variant=parse_variant("gptq-4-ext_abc123"), quantize=said)
    plain = theirs._replace(quantize=own.quantize)
    found = published(records._replace(variants={"gptq-4-ext_abc123": theirs}))
    assert found == [Fact("gptq-4-ext_abc123", "Its chat template is another. It says so.")]
    found = published(records._replace(variants={"gptq-4-ext_abc123": plain}))
    assert found == [Fact("gptq-4-ext_abc123", "no difference was found")]
