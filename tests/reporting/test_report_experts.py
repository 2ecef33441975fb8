"""Calibration tokens of each expert: a table and a heat map, for mixtures alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL, write_cell, write_recipe

from quantlab.records import ExpertTokens, QuantizeRecord
from quantlab.stages import report
from quantlab.workspace.results import read_record, record_path, write_record


def _report(root: Path, tokens: ExpertTokens | None) -> Path:
    write_recipe(root)
    write_cell(root, "baseline-16")
    write_cell(root, "gptq-4")
    made = read_record(record_path(root, MODEL, "gptq-4", "quantize"), QuantizeRecord)
    assert made
    write_record(root, made.model_copy(update={"expert_tokens": tokens}))
    return report.run(root, MODEL).parent


def test_a_mixtures_experts_have_a_table_and_a_map(tmp_path: Path) -> None:
    by_block = {0: (1500, 0, 9), 2: (700, 30, 40)}
    tokens = ExpertTokens(
        calibration_tokens=2048, by_block=by_block, few_are="it rounds them to nearest", rounded=1
    )
    folder = _report(tmp_path, tokens)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "![Calibration tokens by block and expert](plots/experts.svg)" in text
    line = next(line for line in text.splitlines() if line.startswith("| gptq-4") and "| 2,048 |" in line)
    assert "With few tokens: it rounds them to nearest." in text
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["2,048", "6", "2", "33.3 %", "1", "0", "1"]
    assert (folder / "plots" / "experts.svg").stat().st_size > 1000
    assert (folder / "tables" / "experts.csv").is_file()


@pytest.mark.parametrize("tokens", [None, ExpertTokens(calibration_tokens=8, by_block={})])
def test_a_model_without_experts_has_neither(tmp_path: Path, tokens: ExpertTokens | None) -> None:
    folder = _report(tmp_path, tokens)
    assert "by expert" not in (folder / "report.md").read_text(encoding="utf-8")
    assert not (folder / "tables" / "experts.csv").exists()
