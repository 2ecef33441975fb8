"""The commonly quoted bands beside made-up records: a band holds, fails or stays open by the interval
alone."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from madeup import MODEL, NUMBERS, write_cell, write_recipe

from quantlab.catalogue.expectation import expectations, published_loss, published_score
from quantlab.comparison.compare import compare
from quantlab.comparison.load import load_model
from quantlab.reporting.expectations import expectation_findings, expectations_table
from quantlab.reporting.table import Table


@pytest.fixture(scope="module")
def table(workspace: Path) -> Table:
    return expectations_table(compare(load_model(workspace, MODEL)))


def test_the_loss_is_the_mean_drop_relative_to_the_baselines_score(table: Table) -> None:
    rows = {row.values["variant"]: row for row in table.rows}
    # gptq-2: 24 wrong on piqa, 25 on arc_easy, 12 gained on each of 100 items, of which the baseline has 60
    # right
    assert rows["gptq-2"].values["loss_percent"] == pytest.approx(100 * (24 - 12 + 25 - 12) / 2 / 60)
    lower, upper = rows["gptq-2"].values["loss_lower_percent"], rows["gptq-2"].values["loss_upper_percent"]
    assert lower is not None and upper is not None and lower < 100 * 12.5 / 60 < upper
    assert rows["gptq-2"].values["items"] == 200


def test_factors_are_of_the_bytes(table: Table) -> None:
    rows = {row.values["variant"]: row for row in table.rows}
    assert rows["gptq-4"].values["disk_times_smaller"] == pytest.approx(
        NUMBERS["baseline-16"][0] / NUMBERS["gptq-4"][0]
    )
    assert rows["gptq-4"].values["disk_verdict"] == "does not hold"
    assert set(rows) == {slug for slug in [*NUMBERS, "bitsandbytes-4", "awq-2"] if "16" not in slug}


def test_few_items_decide_little_and_the_sentence_says_so(table: Table, workspace: Path) -> None:
    sentences = expectation_findings(compare(load_model(workspace, MODEL)))
    assert [sentence.split(":")[0] for sentence in sentences] == ["8 bits", "4 bits", "3 bits", "2 bits"]
    for sentence in sentences:
        bits = int(sentence[0])
        for row in table.rows:
            slug = str(row.values["variant"])
            assert (slug in sentence) == (
                row.values["bits"] == bits and row.failed is None and _named(row.values)
            )
    assert "cannot be decided (too few items) for" in sentences[0]
    assert "holds for" not in sentences[0].split(";")[0]


def _named(values: dict[str, object]) -> bool:
    return values["loss_verdict"] is not None or "holds" in (values["disk_verdict"], values["peak_verdict"])


def test_the_report_shows_it_and_the_tables_are_written(report: Path, table: Table) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "## Commonly quoted figures and these measurements" in text
    assert table.markdown() in text
    rows = json.loads((report / "tables" / "expectations.json").read_text(encoding="utf-8"))
    assert [row["variant"] for row in rows] == list(
        pd.read_csv(report / "tables" / "expectations.csv")["variant"]
    )


def test_more_items_decide(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    for slug in ("baseline-16", "gptq-2"):
        write_cell(tmp_path, slug, items=3000)
    row = expectations_table(compare(load_model(tmp_path, MODEL))).rows[0]
    # 24 of 3,000 wrong and 12 gained: 0.7 % of the baseline's 60 %, far below 8 to 15 %
    assert row.values["loss_verdict"] == "less lost"


def test_published_figures_are_of_large_models_and_say_so() -> None:
    big, small, unknown = (published_loss("gptq", 4, size) for size in (70_000_000_000, 135_000_000, None))
    assert big and small and unknown
    assert (
        big.loss_high_percent == 1 and small.loss_high_percent is None and unknown.loss_high_percent is None
    )
    assert "small models lose more" in small.source
    assert published_loss("gptq", 7, 8_000_000_000) is None


def test_every_method_and_width_has_a_published_figure() -> None:
    from quantlab import methods

    for name in methods.names():
        for bits in methods.load(name).bits:
            assert published_loss(name, bits, 8_000_000_000), (name, bits)


def test_a_score_is_the_mean_of_the_uses_benchmarks_or_not_known() -> None:
    code = published_score("kimi-k2.6", "code")
    assert code.percent == pytest.approx((80.2 + 78.4 + 92.7) / 3)
    assert published_score("kimi-k2.6", "chat").percent is None
    assert published_score("smollm2", "code").source == "not known: no published score in the catalogue"
    assert published_score("kimi-k2.6", "edge").percent is None
    known = {name for scores in expectations().benchmarks.scores.values() for name in scores}
    assert all(name in known for names in expectations().uses.values() for name in names)
