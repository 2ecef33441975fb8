"""What values on the same items say of a drop: right or wrong answers, clusters, shares; known answers and coverage."""

from __future__ import annotations

import numpy as np
import pytest

from quantlab.analysis.evidence import weigh
from quantlab.analysis.tango import interval
from quantlab.analysis.verdict import Counts, items_to_decide, mcnemar_p, minimum_detectable_drop, verdict_interval, verdict_of


def _answers(n: int, lost: int, won: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.array([1.0] * (n // 2) + [0.0] * (n - n // 2))
    b = a.copy()
    b[:lost] = 0.0
    b[n - won :] = 1.0
    return a, b


def test_independent_answers_by_hand() -> None:
    found = weigh(*_answers(100, 24, 12))
    counts = Counts(100, 24, 12)
    assert found.counts == counts and found.drop == pytest.approx(0.12)
    # differences: 24 of 1, 12 of -1; squares 36; variance (36 - 100 * 0.0144) / 99
    assert found.standard_error == pytest.approx(((36 - 1.44) / 99 / 100) ** 0.5)
    assert found.ninety == verdict_interval(counts) and found.ninety_five == pytest.approx(interval(24, 12, 100))
    assert found.p == mcnemar_p(24, 12) and (found.clusters, found.design_effect) == (100, 1.0)
    assert found.minimum_detectable_drop == minimum_detectable_drop(counts) and found.items_to_decide(1) == items_to_decide(counts, 1)


def test_every_item_its_own_cluster_is_no_cluster() -> None:
    a, b = _answers(60, 5, 3)
    assert weigh(a, b, [f"item {i}" for i in range(60)]) == weigh(a, b)


def test_clusters_widen_and_their_order_does_not_matter() -> None:
    # whole passages of four questions are lost together: a quarter of the independent units
    a = np.ones(400)
    b = np.repeat(np.array([0.0] * 10 + [1.0] * 90), 4)
    passages = np.repeat(np.arange(100), 4)
    alone, together = weigh(a, b), weigh(a, b, passages.tolist())
    assert together.clusters == 100 and together.design_effect == pytest.approx(4, rel=0.02)
    assert together.ninety_five.lower < alone.ninety_five.lower and together.ninety_five.upper > alone.ninety_five.upper
    assert together.p > alone.p and together.items_to_decide(1) > 3.9 * alone.items_to_decide(1)
    order = np.random.default_rng(0).permutation(400)
    shuffled = weigh(a[order], b[order], passages[order].tolist())
    assert shuffled.standard_error == pytest.approx(together.standard_error)
    assert shuffled.ninety_five == pytest.approx(together.ninety_five, abs=0.005)


def test_few_clusters_decide_nothing() -> None:
    found = weigh(np.ones(80), np.zeros(80), np.repeat(np.arange(20), 4).tolist())
    assert found.ninety == (-1.0, 1.0) and verdict_of(found.ninety, 1.0) == "undecided" and found.p == 1.0


def test_no_change_in_clusters_is_not_certainty() -> None:
    found = weigh(np.ones(200), np.ones(200), np.repeat(np.arange(50), 4).tolist())
    assert found.ninety.upper > 0.01 and found.ninety.lower < 0 and found.p == 1.0


def test_shares_take_students_interval() -> None:
    from scipy.stats import ttest_rel

    random = np.random.default_rng(2)
    a, b = random.uniform(size=50), random.uniform(size=50)
    found, theirs = weigh(a, b), ttest_rel(a, b)
    assert found.counts is None and found.p == pytest.approx(theirs.pvalue)
    ninety = theirs.confidence_interval(0.90)
    assert found.ninety == pytest.approx((ninety.low, ninety.high), rel=1e-6)
    assert found.items_to_decide(1.0) == pytest.approx(6.18 * 50 * (found.standard_error / 0.01) ** 2, rel=0.01)


def test_an_early_end_widens_both_intervals() -> None:
    a, b = _answers(200, 10, 2)
    plain, early = weigh(a, b), weigh(a, b, z=2.5)
    for name in ("ninety", "ninety_five"):
        assert getattr(early, name).lower < getattr(plain, name).lower and getattr(early, name).upper > getattr(plain, name).upper


@pytest.mark.parametrize(("passages", "each"), [(60, 4), (200, 3)])
def test_coverage_and_false_verdicts_in_clusters(passages: int, each: int) -> None:
    """Items of a passage share their chance to be lost; the true drop is exactly the margin of 4 points."""
    random, runs, margin = np.random.default_rng(7), 600, 0.04
    covered = within = worse = 0
    for _ in range(runs):
        lost = random.beta(0.3, 0.3 * (1 - 0.06) / 0.06, passages)  # mean 6 %, strongly unlike between passages
        won = np.full(passages, 0.02)
        draw = random.uniform(size=(passages, each))
        change = np.where(draw < lost[:, None], -1.0, np.where(draw > 1 - won[:, None], 1.0, 0.0)).ravel()
        a = np.where(change < 0, 1.0, np.where(change > 0, 0.0, 1.0))
        found = weigh(a, a + change, np.repeat(np.arange(passages), each).tolist())
        covered += found.ninety_five.lower <= margin <= found.ninety_five.upper
        verdict = verdict_of(found.ninety, 100 * margin)
        within, worse = within + (verdict == "within margin"), worse + (verdict == "worse")
    three_errors = 3 * (0.05 * 0.95 / runs) ** 0.5
    assert covered / runs >= 0.95 - three_errors
    assert within / runs <= 0.05 + three_errors and worse / runs <= 0.05 + three_errors
