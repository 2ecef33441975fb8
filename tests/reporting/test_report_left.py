"""What a variant left in 16 bits stands beside its bits per weight, and in the first lines where it is much."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL, write_cell, write_recipe

from quantlab.comparison.compare import compare
from quantlab.comparison.load import load_model
from quantlab.records import QuantizeRecord, Unquantized
from quantlab.reporting.findings import findings
from quantlab.reporting.summary import summary_table
from quantlab.workspace.results import read_record, record_path, write_record


def _write(root: Path, slug: str, left: Unquantized | None) -> None:
    write_cell(root, slug)
    made = read_record(record_path(root, MODEL, slug, "quantize"), QuantizeRecord)
    assert made
    write_record(root, made.model_copy(update={"unquantized": left}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("left")
    write_recipe(root)
    _write(root, "baseline-16", Unquantized(weights=1000, by_kind={"linears": 1000}))
    experts = {"experts": 850, "embedding": 50, "norms": 10, "router": 4}
    _write(root, "bitsandbytes-8", Unquantized(weights=1000, by_kind=experts))
    _write(root, "gptq-4", Unquantized(weights=1000, by_kind={"embedding": 210, "norms": 1}))
    _write(root, "gptq-3", None)
    return root


def test_the_share_and_its_kinds_stand_in_the_summary(root: Path) -> None:
    table = summary_table(compare(load_model(root, MODEL)))
    rows = {row.values["variant"]: row for row in table.rows}
    values = rows["bitsandbytes-8"].values
    assert values["unquantized_share"] == pytest.approx(0.914)
    assert (
        values["unquantized_kinds"]
        == "experts 85.0 %, embedding 5.0 %, norms and biases 1.0 %, routers 0.4 %"
    )
    assert values["unquantized_experts_weights"] == 850 and values["unquantized_head_weights"] == 0
    assert "| 91.4 % (experts 85.0 %, embedding 5.0 %, " in table.markdown()
    assert rows["gptq-4"].values["unquantized_kinds"] == "embedding 21.0 %, norms and biases 0.1 %"
    assert "quantize again" in rows["gptq-3"].missing["unquantized_share"]
    assert rows["baseline-16"].missing["unquantized_share"] == "no layer is quantized"


def test_much_of_what_the_name_promises_is_in_the_first_lines(root: Path) -> None:
    second = findings(compare(load_model(root, MODEL)))[1]
    assert second.startswith(
        "**Left in 16 bits**, though the name says fewer: bitsandbytes-8 (91.4 % of its weights:"
    )
    assert "gptq-4" not in second  # an embedding is what GPTQ leaves in every model


def test_bits_of_the_quantized_part_never_stand_alone(root: Path) -> None:
    headers = [column.header for column in summary_table(compare(load_model(root, MODEL))).columns]
    place = headers.index("bits per weight, quantized layers")
    assert headers[place + 1] == "left in 16 bits, of all weights"
