"""Routing changes: a table, a column beside the divergence and a heat map, for mixtures alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from madeup import FAILED, MODEL, write_cell, write_failure, write_recipe

from quantlab.records import DivergenceRecord, Estimate, RoutingChanges
from quantlab.stages import report
from quantlab.workspace.results import read_record, record_path, write_record

CHANGES = RoutingChanges(
    experts=128,
    experts_per_token=8,
    changed_token_share=Estimate(value=0.25, standard_error=0.01, n=32),
    replaced_expert_share=Estimate(value=0.0625, standard_error=None, n=32),
    changed_token_share_by_block={1: 0.125, 2: 0.375},
)


def _report(root: Path, **by_variant: dict[str, Any]) -> str:
    write_recipe(root)
    for slug in ("baseline-16", "gptq-4"):
        write_cell(root, slug)
        found = read_record(record_path(root, MODEL, slug, "diverge"), DivergenceRecord)
        assert found
        write_record(root, found.model_copy(update=by_variant.get(slug.replace("-", "_"), {})))
    write_failure(root, "awq-2", FAILED["awq-2"])
    return report.run(root, MODEL).read_text(encoding="utf-8")


def _rows(text: str, heading: str) -> dict[str, list[str]]:
    section = text[text.index(heading) :].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {row[0].rstrip("⁰¹²³⁴⁵⁶⁷⁸⁹"): row for row in reversed(cells)}  # of two tables the first


def test_a_mixture_has_a_table_a_column_and_a_map(tmp_path: Path) -> None:
    text = _report(
        tmp_path,
        gptq_4={"routing_changes": CHANGES},
        baseline_16={"routing_changes_reason": "the engine does not tell"},
    )
    rows = _rows(text, "### Routing changes")
    assert rows["gptq-4"] == ["gptq-4", "25.00 ± 1.00", "6.25", "2 (37.5 %)", "8 of 128"]
    assert rows["baseline-16"][1].rstrip("⁰¹²³⁴⁵⁶⁷⁸⁹") == "—" and "the engine does not tell" in text
    assert rows["awq-2"][1].startswith("not offered")
    beside = _rows(text, "## Divergence")
    assert beside["variant"][-1] == "tokens with another set of experts (%)"
    assert beside["gptq-4"][-1] == "25.00 ± 1.00"
    folder = tmp_path / "reports" / MODEL
    assert "(plots/routing.svg)" in text
    assert ElementTree.parse(folder / "plots" / "routing.svg").getroot().tag.endswith("svg")
    assert (folder / "tables" / "routing.csv").is_file()


def test_where_nobody_measured_it_there_is_a_reason_and_no_map(tmp_path: Path) -> None:
    text = _report(tmp_path, gptq_4={"routing_changes_reason": "the engine does not tell"})
    assert "### Routing changes" in text and "plots/routing.svg" not in text
    assert "not in the record: run diverge again" in text  # of the other variant


def test_a_dense_model_has_none_of_it(tmp_path: Path) -> None:
    text = _report(tmp_path)
    assert "set of experts" not in text and "Routing changes" not in text
    assert not (tmp_path / "reports" / MODEL / "tables" / "routing.csv").exists()


@pytest.mark.parametrize("bad", [-0.1, 1.5])
def test_a_share_is_between_0_and_1(bad: float) -> None:
    with pytest.raises(ValueError, match=r"routing_changes.*which cannot be"):
        DivergenceRecord(
            model=MODEL,
            variant="gptq-4",
            routing_changes=CHANGES.model_copy(update={"changed_token_share_by_block": {0: bad}}),
        )
