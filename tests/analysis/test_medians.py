"""Medians and their intervals against counted coverages."""

from __future__ import annotations

import itertools
import random

import pytest

from quantlab.analysis.medians import median, paired_ratio


@pytest.mark.parametrize(
    ("n", "low", "high", "coverage"),
    [
        (1, 0, 0, 0.0),
        (3, 0, 2, 0.75),
        (5, 0, 4, 0.9375),
        (6, 0, 5, 0.96875),
        (9, 1, 7, 0.9609375),
        (15, 3, 11, 0.96484375),
    ],
)
def test_known_intervals(n: int, low: int, high: int, coverage: float) -> None:
    # the coverages are the tabled ones, such as (3rd and 13th ... of 15) in Conover, Practical Nonparametric
    # Statistics
    samples = [float(i) for i in range(n)]
    random.Random(n).shuffle(samples)
    found = median(samples)
    assert found and (found.value, found.low, found.high, found.n) == ((n - 1) / 2, low, high, n)
    assert found.coverage == pytest.approx(coverage)


def test_the_coverage_is_the_share_of_coin_sequences_that_surround_the_median() -> None:
    found = median([float(i) for i in range(9)])
    below = [sum(coins) for coins in itertools.product((0, 1), repeat=9)]
    assert found and found.coverage == sum(2 <= b <= 7 for b in below) / 2**9


def test_pairs_take_the_drift_out() -> None:
    drift = [1.0, 2.0, 4.0, 3.0, 5.0]
    found = paired_ratio([2 * d for d in drift], drift)
    assert found and (found.value, found.low, found.high) == (2, 2, 2)
    assert paired_ratio([1.0], []) is None and median([]) is None
