"""Verdicts of compared variants are those of the analysis on the records' own items."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL

from quantlab.analysis.tango import interval
from quantlab.analysis.verdict import mcnemar_p
from quantlab.comparison.compare import Comparison, compare
from quantlab.comparison.load import load_model
from quantlab.recipe import ComparisonSpec


def test_a_collapsed_variant_is_worse_and_a_close_one_undecided(compared: Comparison) -> None:
    judged = {slug: variant.mean.judged for slug, variant in compared.variants.items()}
    assert judged["gptq-2"] and judged["gptq-2"].verdict == "worse"
    assert judged["gguf-8"] and judged["gguf-8"].verdict == "undecided"
    assert judged["baseline-16"] is None and judged["awq-2"] is None


def test_a_task_is_judged_by_tango_and_holm(compared: Comparison) -> None:
    # gptq-2: of 100 items each, 24 and 25 go wrong, 12 come right
    tasks = compared.variants["gptq-2"].tasks
    piqa, arc_easy = tasks["piqa"].judged, tasks["arc_easy"].judged
    expected = interval(24, 12, 100)
    assert piqa and piqa.ninety_five == pytest.approx((100 * expected.lower, 100 * expected.upper))
    first, second = mcnemar_p(25, 12), mcnemar_p(24, 12)
    assert first < second
    assert arc_easy and arc_easy.p_adjusted == pytest.approx(2 * first)
    assert piqa.p_adjusted == pytest.approx(max(2 * first, second))


def test_a_wide_margin_decides_what_a_narrow_one_cannot(workspace: Path) -> None:
    records = load_model(workspace, MODEL)
    spec = ComparisonSpec(margin_points=20.0)
    wide = records._replace(recipe=records.recipe.model_copy(update={"comparison": spec}))
    judged = compare(wide).variants["gguf-8"].mean.judged
    assert judged and judged.verdict == "within margin"
