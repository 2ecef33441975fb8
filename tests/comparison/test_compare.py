"""Every way of showing a variant shows the values of the one comparison, and nobody changes them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from madeup import FAILED, MODEL, NUMBERS

from quantlab.comparison.compare import Comparison, compare
from quantlab.comparison.gate import judge
from quantlab.comparison.load import load_model
from quantlab.reporting.metrics import metrics_json
from quantlab.reporting.summary import summary_table
from quantlab.reporting.terminal import summary


def test_values_are_those_of_the_records(compared: Comparison) -> None:
    assert set(compared.variants) == {*NUMBERS, *FAILED}
    for slug, (megabytes, nats, _, _, speed) in NUMBERS.items():
        variant = compared.variants[slug]
        assert variant.disk.bytes == int(megabytes * 1e6) and variant.status.failed is None
        assert variant.divergence.estimate and variant.divergence.estimate.value == nats
        assert variant.first_speed and variant.first_speed.decode.rate
        assert variant.first_speed.decode.rate.value == pytest.approx(speed, rel=0.05)
    assert compared.variants["gptq-4"].disk.share == pytest.approx(1 - 114.6 / 269.1, rel=1e-6)


def test_a_value_that_is_missing_has_its_reason(compared: Comparison) -> None:
    for slug in FAILED:
        variant = compared.variants[slug]
        assert variant.status.failed and variant.status.reason
        assert variant.disk.share is None and variant.disk.reason
        assert variant.divergence.estimate is None and variant.divergence.reason
        assert variant.mean.drop is None and variant.mean.reason and variant.mean.no_relative
        for task in compared.tasks:
            assert variant.tasks[task].drop is None and variant.tasks[task].outcome.reason


def test_it_is_frozen(compared: Comparison) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        compared.peak_kind = "other"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        compared.variants["gptq-4"].engine = "other"  # type: ignore[misc]


def test_table_metrics_terminal_and_gate_show_the_same_values(compared: Comparison) -> None:
    rows = {row.values["variant"]: row.values for row in summary_table(compared).rows}
    metrics = json.loads(metrics_json(compared))
    shown = summary(compared)
    drops = dict(zip(shown.columns[0]._cells, shown.columns[6]._cells, strict=True))
    judged = {
        each.variant: each for each in judge(compared, compared.margin_points, (), (), allow_undecided=False)
    }
    for slug, variant in compared.variants.items():
        values, known = rows[slug], metrics.get(slug, {})
        for key in (
            "disk_bytes",
            "disk_saving",
            "kl_divergence_nats",
            "mean_drop_points",
            "decode_ratio",
            "prefill_ratio",
        ):
            assert values[key] == known.get(key)
        if variant.mean.drop:
            points = variant.mean.drop.points
            assert values["mean_drop_points"] == points and str(drops[slug]).startswith(f"{points:.1f} [")
            assert variant.mean.judged and values["verdict"] == variant.mean.judged.verdict
            if slug in judged and variant.status.name != "collapsed":  # the gate passes none that collapsed
                assert judged[slug].drop_points == pytest.approx(points)
                assert judged[slug].verdict == variant.mean.judged.verdict
        else:
            assert values["mean_drop_points"] is None and drops[slug] == "–"


def test_the_order_of_the_records_decides_nothing(workspace: Path, compared: Comparison) -> None:
    records = load_model(workspace, MODEL)
    turned = compare(records._replace(variants=dict(reversed(records.variants.items()))))
    assert turned.ranking == compared.ranking and turned.frontier == compared.frontier
    assert {slug: each.mean for slug, each in turned.variants.items()} == {
        slug: each.mean for slug, each in compared.variants.items()
    }
