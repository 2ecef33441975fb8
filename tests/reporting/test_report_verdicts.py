"""Verdicts in the report are those of the analysis on the records' own items."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL

from quantlab.analysis.tango import interval
from quantlab.analysis.verdict import Counts, items_to_decide, mcnemar_p
from quantlab.recipe import ComparisonSpec
from quantlab.reporting.load import load_model
from quantlab.reporting.verdicts import decisions_table, judge_all, judge_tasks


def test_a_collapsed_variant_is_worse_and_a_close_one_undecided(workspace: Path) -> None:
    records = load_model(workspace, MODEL)
    judged = {slug: judge_all(records, records.variants[slug]) for slug in ("gptq-2", "gguf-8", "baseline-16", "awq-2")}
    assert judged["gptq-2"] and judged["gptq-2"].verdict == "worse"
    assert judged["gguf-8"] and judged["gguf-8"].verdict == "undecided"
    assert judged["baseline-16"] is None and judged["awq-2"] is None


def test_a_task_is_judged_by_tango_and_holm(workspace: Path) -> None:
    # gptq-2: of 100 items each, 24 and 25 go wrong, 12 come right
    records = load_model(workspace, MODEL)
    found = judge_tasks(records, records.variants["gptq-2"])
    expected = interval(24, 12, 100)
    assert found["piqa"].ninety_five == pytest.approx((100 * expected.lower, 100 * expected.upper))
    first, second = mcnemar_p(25, 12), mcnemar_p(24, 12)
    assert first < second
    assert found["arc_easy"].p_adjusted == pytest.approx(2 * first) and found["piqa"].p_adjusted == pytest.approx(max(2 * first, second))


def test_a_wide_margin_decides_what_a_narrow_one_cannot(workspace: Path) -> None:
    records = load_model(workspace, MODEL)
    wide = records._replace(recipe=records.recipe.model_copy(update={"comparison": ComparisonSpec(margin_points=20.0)}))
    judged = judge_all(wide, wide.variants["gguf-8"])
    assert judged and judged.verdict == "within margin"


def test_the_table_says_what_the_items_can_decide(workspace: Path) -> None:
    rows = {(r.values["variant"], r.values["task"]): r.values for r in decisions_table(load_model(workspace, MODEL)).rows}
    values = rows["gptq-2", "piqa"]
    assert values["items_to_decide"] == items_to_decide(Counts(100, 24, 12))
    assert values["recovery"] == pytest.approx(48 / 60) and values["recovery_above_chance"] == pytest.approx((0.48 - 0.5) / 0.1)
    assert values["minimum_detectable_drop_points"] == pytest.approx(248.65 * (0.36 / 100) ** 0.5, rel=1e-3)
    assert rows["awq-2", "piqa"]["verdict"] is None
