"""Verdicts in the report are those of the analysis on the records' own items."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from madeup import MODEL, NUMBERS, write_workspace

from quantlab.analysis.verdict import Counts, items_to_decide
from quantlab.comparison.compare import compare
from quantlab.comparison.load import load_model
from quantlab.recipe import ComparisonSpec
from quantlab.records import Look, TaskRecord
from quantlab.reporting.accuracy import accuracy_table
from quantlab.reporting.decisions import decisions_table
from quantlab.reporting.divergences import sureness_table
from quantlab.reporting.drop_findings import drop_findings
from quantlab.workspace.results import read_record, record_path, write_record


def test_the_table_says_what_the_items_can_decide(workspace: Path) -> None:
    rows = {
        (r.values["variant"], r.values["task"]): r.values
        for r in decisions_table(compare(load_model(workspace, MODEL))).rows
    }
    values = rows["gptq-2", "piqa"]
    assert values["items_to_decide"] == items_to_decide(Counts(100, 24, 12))
    assert values["recovery"] == pytest.approx(48 / 60) and values["recovery_above_chance"] == pytest.approx(
        (0.48 - 0.5) / 0.1
    )
    assert values["minimum_detectable_drop_points"] == pytest.approx(248.65 * (0.36 / 100) ** 0.5, rel=1e-3)
    assert rows["awq-2", "piqa"]["verdict"] is None


def _ended_early(root: Path, slug: str, kept: int) -> None:
    path = record_path(root, MODEL, slug, "evaluate")
    record = read_record(path, TaskRecord)
    assert record is not None
    look = Look(
        number=3,
        of=5,
        items=kept,
        available=100,
        quantile=2.3,
        verdict="worse",
        reason="settled at look 3 of 5",
    )
    write_record(
        root,
        record.model_copy(
            update={"tasks": {t: r.model_copy(update={"look": look}) for t, r in record.tasks.items()}}
        ),
    )
    samples = pd.read_parquet(path.with_name("samples.parquet"))
    samples[samples["doc_id"] < kept].to_parquet(path.with_name("samples.parquet"))


def test_recovery_is_of_the_items_that_both_were_asked(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    _ended_early(tmp_path, "gptq-2", 60)
    row = next(
        r
        for r in decisions_table(compare(load_model(tmp_path, MODEL))).rows
        if (r.values["variant"], r.values["task"]) == ("gptq-2", "piqa")
    )
    # of the first 60 items the baseline has all right and the variant 24 wrong
    assert row.values["n"] == 60 and row.values["recovery"] == pytest.approx(36 / 60)
    assert row.values["recovery_above_chance"] == pytest.approx((0.6 - 0.5) / 0.5)
    assert "reach 2.30 instead of 1.64" in row.notes[0] and "does not account for the looks" in row.notes[0]


def test_log_likelihoods_have_a_difference_and_no_points(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    for slug in NUMBERS:
        path = record_path(tmp_path, MODEL, slug, "evaluate").with_name("samples.parquet")
        samples = pd.read_parquet(path)
        chosen = (samples["task"] == "arc_easy") & (samples["metric"] == "acc_norm")
        worse = 0.0 if slug == "baseline-16" else 2.0
        samples.loc[chosen, "value"] = -40.0 - worse - samples.loc[chosen, "doc_id"] * (0.1 + worse / 1000)
        samples.to_parquet(path)
    records = load_model(tmp_path, MODEL)
    table = accuracy_table(compare(records))
    rows = {(r.values["variant"], r.values["task"]): r.values for r in table.rows}
    found = rows["gguf-4", "arc_easy"]
    assert (
        found["difference"] == pytest.approx(2 + 0.002 * 49.5)
        and found["drop_points"] is None
        and found["verdict"] is None
    )
    assert found["difference_lower"] < found["difference"] < found["difference_upper"] and found["n"] == 100
    assert rows["gguf-4", "piqa"]["difference"] is None and rows["gguf-4", "piqa"]["drop_points"] is not None
    assert any("metric's unit" in column.header for column in table.columns)
    # the verdict over all tasks is over those in points
    compared = compare(records).variants["gptq-2"]
    judged, alone = compared.mean.judged, compared.tasks["piqa"].judged
    assert (
        judged and alone and judged.verdict == alone.verdict and judged.points == pytest.approx(alone.points)
    )
    assert ("gguf-4", "arc_easy") not in {
        (r.values["variant"], r.values["task"]) for r in decisions_table(compare(records)).rows
    }


def test_a_task_that_the_mean_hides_is_named(workspace: Path) -> None:
    records = load_model(workspace, MODEL)
    wide = records._replace(
        recipe=records.recipe.model_copy(update={"comparison": ComparisonSpec(margin_points=20.0)})
    )
    said = " ".join(drop_findings(compare(wide)))
    assert "gguf-8 (" in said and "KL divergence 0.00450 nats" in said
    assert "of 11 variants judged, up to 0.6 by chance" in said


def test_a_quarter_that_is_left_out_does_not_shift_the_others(workspace: Path) -> None:
    records = load_model(workspace, MODEL)
    for slug, variant in records.variants.items():
        if variant.divergence:
            kept = variant.divergence.by_entropy[1:]
            records.variants[slug] = variant._replace(
                divergence=variant.divergence.model_copy(update={"by_entropy": kept})
            )
    table = sureness_table(compare(records))
    assert [column.header for column in table.columns[1:]] == [
        "entropy 1.50 to 3.00",
        "entropy 3.00 to 4.50",
        "entropy 4.50 to 6.00",
    ]
    full = load_model(workspace, MODEL)
    full.variants["gguf-4"] = records.variants["gguf-4"]
    row = next(row for row in sureness_table(compare(full)).rows if row.values["variant"] == "gguf-4")
    assert row.values["quarter1_kl_divergence_nats"] is None
    assert row.values["quarter2_kl_divergence_nats"] == pytest.approx(0.6 * NUMBERS["gguf-4"][1])
