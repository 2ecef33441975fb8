"""Verdicts, tests and the items that they need: known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantlab.analysis.tango import Interval, interval
from quantlab.analysis.verdict import (
    Counts,
    holm,
    items_to_decide,
    mcnemar_p,
    minimum_detectable_drop,
    pooled,
    verdict_interval,
    verdict_of,
)


@pytest.mark.parametrize(
    ("ninety", "verdict"),
    [
        (Interval(-0.004, 0.009), "within margin"),
        (Interval(-0.004, 0.01), "undecided"),
        (Interval(0.012, 0.05), "worse"),
        (Interval(0.01, 0.05), "undecided"),
        (Interval(-0.05, -0.01), "within margin"),
    ],
)
def test_verdicts(ninety: Interval, verdict: str) -> None:
    assert verdict_of(ninety, 1.0) == verdict


def test_a_hundred_unchanged_items_decide_nothing_near_one_point_and_361_do() -> None:
    def verdict(n: int) -> str:
        return verdict_of(verdict_interval(Counts(n, 0, 0)), 1.0)

    assert verdict(100) == verdict(360) == "undecided" and verdict(361) == "within margin"
    assert items_to_decide(Counts(100, 0, 0)) == 361


def test_five_percent_of_flips_need_about_3100_items() -> None:
    # at the measured flips 6.18 * 0.05 / 0.01^2 = 3,091; with the upper end of their interval a little more
    assert items_to_decide(Counts(10**7, 250_000, 250_000)) == pytest.approx(3091, rel=0.01)
    assert items_to_decide(Counts(200, 5, 5)) > 3100
    assert items_to_decide(Counts(200, 5, 5), margin_points=5.0) < 400


def test_the_minimum_detectable_drop_is_never_zero() -> None:
    assert minimum_detectable_drop(Counts(1000, 30, 20)) == pytest.approx(
        2.4865 * math.sqrt(0.05 / 1000), rel=1e-4
    )
    assert minimum_detectable_drop(Counts(100, 0, 0)) > 0.03


def test_mcnemar_by_hand() -> None:
    # 2 * P[Binomial(12, 1/2) <= 3] = 2 * 299 / 4096
    assert mcnemar_p(3, 9) == mcnemar_p(9, 3) == pytest.approx(2 * 299 / 4096)
    assert mcnemar_p(0, 0) == mcnemar_p(4, 4) == 1.0


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({}) == {}


def test_holm_is_that_of_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(0).random((4, 6)) ** 3
    for row in p_values:
        ours = list(holm(dict(zip("abcdef", row, strict=True))).values())
        assert ours == pytest.approx(list(multipletests(row, method="holm")[1]))


def test_one_task_pools_to_tangos_interval_and_two_are_tighter() -> None:
    counts = Counts(400, 14, 6)
    alone = interval(14, 6, 400, 0.9)
    assert pooled([counts], 0.9) == pytest.approx(alone)
    both = pooled([counts, counts], 0.9)
    assert (both.upper - both.lower) == pytest.approx((alone.upper - alone.lower) / math.sqrt(2))
    with pytest.raises(ValueError, match="no task"):
        pooled([], 0.9)
