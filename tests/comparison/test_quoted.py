"""Quoted bands hold, fail or stay open by the interval alone; a loss is relative to the tasks that it is
over."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from madeup import MODEL, NUMBERS, write_workspace

from quantlab.catalogue.expectation import QuotedBand
from quantlab.comparison.compare import Comparison, compare
from quantlab.comparison.load import load_model
from quantlab.comparison.quoted import loss_verdict, saving_verdict
from quantlab.workspace.results import record_path

FOUR = QuotedBand(bits=4, loss_low_percent=2, loss_high_percent=4, times_smaller=4, quoted_for="GPTQ, AWQ")


@pytest.mark.parametrize(
    ("lower", "upper", "verdict"),
    [
        (2.0, 4.0, "holds"),
        (2.5, 3.5, "holds"),
        (4.1, 9.0, "more lost"),
        (-1.0, 1.9, "less lost"),
        (1.0, 3.0, "cannot be decided"),
        (3.0, 5.0, "cannot be decided"),
        (-3.0, 12.0, "cannot be decided"),
    ],
)
def test_a_band_is_judged_by_the_whole_interval(lower: float, upper: float, verdict: str) -> None:
    assert loss_verdict(lower, upper, FOUR) == verdict


def test_a_saving_holds_from_5_percent_below_the_quoted_factor() -> None:
    assert [saving_verdict(times, FOUR) for times in (3.79, 3.81, 4.5)] == ["does not hold", "holds", "holds"]


def test_a_variant_that_failed_has_no_band(compared: Comparison) -> None:
    assert (
        compared.variants["awq-2"].quoted.band is None and compared.variants["gptq-2"].quoted.band is not None
    )


def test_a_loss_is_relative_to_the_scores_of_the_tasks_in_points_alone(tmp_path: Path) -> None:
    """A log-likelihood of -40 among the scores would make a loss of any size, or one that is negative."""
    write_workspace(tmp_path)
    for slug in NUMBERS:
        path = record_path(tmp_path, MODEL, slug, "evaluate").with_name("samples.parquet")
        samples = pd.read_parquet(path)
        samples.loc[(samples["task"] == "arc_easy") & (samples["metric"] == "acc_norm"), "value"] = -40.0
        samples.to_parquet(path)
    records = load_model(tmp_path, MODEL)
    baseline = records.variants["baseline-16"]
    assert baseline.tasks
    scores = dict(baseline.tasks.tasks)
    score = scores["arc_easy"].score.model_copy(update={"value": -40.0})
    scores["arc_easy"] = scores["arc_easy"].model_copy(update={"score": score})
    changed = baseline._replace(tasks=baseline.tasks.model_copy(update={"tasks": scores}))
    records.variants["baseline-16"] = changed
    loss = compare(records).variants["gptq-2"].mean.relative
    assert loss and loss.percent == pytest.approx(100 * 12 / 60) and loss.items == 100
