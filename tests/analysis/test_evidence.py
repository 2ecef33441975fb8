"""What values on the same items say of a drop: right or wrong answers, clusters, shares; known answers and
coverage."""

from __future__ import annotations

import numpy as np
import pytest

from quantlab.analysis.evidence import weigh
from quantlab.analysis.grouped import Groups, clustered_ends
from quantlab.analysis.tango import interval
from quantlab.analysis.verdict import (
    Counts,
    items_to_decide,
    mcnemar_p,
    minimum_detectable_drop,
    verdict_interval,
    verdict_of,
)


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
    assert found.ninety == verdict_interval(counts) and found.ninety_five == pytest.approx(
        interval(24, 12, 100)
    )
    assert found.p == mcnemar_p(24, 12) and (found.clusters, found.design_effect) == (100, 1.0)
    assert found.minimum_detectable_drop == minimum_detectable_drop(counts) and found.items_to_decide(
        1
    ) == items_to_decide(counts, 1)


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
    assert (
        together.ninety_five.lower < alone.ninety_five.lower
        and together.ninety_five.upper > alone.ninety_five.upper
    )
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


@pytest.mark.parametrize(("n", "wider"), [(50, 1.08), (5000, 1.01)])
def test_shares_take_students_interval_or_wider(n: int, wider: float) -> None:
    from scipy.stats import ttest_rel

    random = np.random.default_rng(2)
    a, b = random.uniform(size=n), random.uniform(size=n)
    found, theirs = weigh(a, b), ttest_rel(a, b)
    assert found.counts is None and found.p == pytest.approx(theirs.pvalue)
    ninety = theirs.confidence_interval(0.90)
    assert found.ninety.lower <= ninety.low and found.ninety.upper >= ninety.high
    assert found.ninety.upper - found.ninety.lower <= wider * (ninety.high - ninety.low)
    assert found.items_to_decide(1.0) == pytest.approx(
        6.18 * n * (found.standard_error / 0.01) ** 2, rel=0.01
    )


def test_an_early_end_widens_both_intervals() -> None:
    a, b = _answers(200, 10, 2)
    plain, early = weigh(a, b), weigh(a, b, z=2.5)
    for name in ("ninety", "ninety_five"):
        assert (
            getattr(early, name).lower < getattr(plain, name).lower
            and getattr(early, name).upper > getattr(plain, name).upper
        )


def _together(
    random: np.random.Generator, runs: int, shape: tuple[int, int], flips: float, drop: float, whole: float
) -> Groups:
    """Clusters of which a share `whole` changes as one; in the others each item by itself."""
    clusters, each = shape
    as_one = random.random((runs, clusters, 1)) < whole
    draw = np.where(as_one, random.random((runs, clusters, 1)), random.random((runs, clusters, each)))
    lost, won = (
        (draw < (flips + drop) / 2).sum(-1).astype(float),
        (draw > 1 - (flips - drop) / 2).sum(-1).astype(float),
    )
    return Groups(lost, won, np.full(clusters, float(each)))


def _unlike(random: np.random.Generator, runs: int, shape: tuple[int, int]) -> Groups:
    """Items of a cluster share their chance to be lost, mean 6 %, strongly unlike between clusters; 2 % are
    won."""
    clusters, each = shape
    chance = random.beta(0.3, 0.3 * (1 - 0.06) / 0.06, (runs, clusters, 1))
    draw = random.random((runs, clusters, each))
    lost, won = (
        (draw < chance).sum(-1).astype(float),
        ((draw > 0.98) & (draw >= chance)).sum(-1).astype(float),
    )
    return Groups(lost, won, np.full(clusters, float(each)))


# name: clusters and items in each, flips, the true drop, which is the margin, and the share of clusters that
# change as one
CLUSTERED = {
    "few, all together": ((40, 8), 0.04, 0.02, 1.0),
    "few, half together": ((60, 5), 0.05, 0.02, 0.5),
    "few flips, half together": ((100, 4), 0.03, 0.01, 0.5),
    "many, half together": ((300, 3), 0.05, 0.02, 0.5),
    "few, independent": ((60, 5), 0.05, 0.02, 0.0),
}


@pytest.mark.parametrize("name", [*CLUSTERED, "60 unlike", "200 unlike"])
def test_coverage_and_false_verdicts_in_clusters(name: str) -> None:
    """The true drop is exactly the margin; seeded, up to the simulation's own error."""
    random, runs = np.random.default_rng(7), 600
    if name in CLUSTERED:
        shape, flips, margin, whole = CLUSTERED[name]
        groups = _together(random, runs, shape, flips, margin, whole)
    else:
        margin, groups = 0.04, _unlike(random, runs, (60, 4) if name.startswith("60") else (200, 3))
    ninety, ninety_five = (
        clustered_ends(groups, 1.6448536269514722, 0.5),
        clustered_ends(groups, 1.959963984540054, 0.0),
    )
    within, worse = (ninety.upper < margin).mean(), (ninety.lower > margin).mean()
    covered = ((ninety_five.lower <= margin) & (margin <= ninety_five.upper)).mean()
    three_errors = 3 * (0.05 * 0.95 / runs) ** 0.5
    assert covered >= 0.95 - three_errors and covered >= 0.94
    assert within <= 0.05 + three_errors and worse <= 0.05 + three_errors


def test_many_clusters_still_decide() -> None:
    """The price of the above is no blindness: a true drop of 0 is within 2 points nearly always."""
    groups = _together(np.random.default_rng(3), 200, (1000, 4), 0.03, 0.0, 0.5)
    assert (clustered_ends(groups, 1.6448536269514722, 0.5).upper < 0.02).mean() > 0.95


def test_the_intervals_simulated_above_are_the_evidences() -> None:
    groups = _together(np.random.default_rng(4), 3, (50, 4), 0.2, 0.05, 0.5)
    one = Groups(groups.lost[1], groups.won[1], groups.sizes)
    # as items: in each cluster first those lost, then those won, then the unchanged
    places = np.arange(4)
    lost, won = (
        places < one.lost[:, None],
        (places >= one.lost[:, None]) & (places < (one.lost + one.won)[:, None]),
    )
    found = weigh(
        np.where(won, 0.0, 1.0).ravel(),
        np.where(lost, 0.0, 1.0).ravel(),
        np.repeat(np.arange(50), 4).tolist(),
    )
    assert found.counts == (200, int(one.lost.sum()), int(one.won.sum()))
    assert found.ninety == pytest.approx(tuple(map(float, clustered_ends(one, 1.6448536269514722, 0.5))))
    assert found.ninety_five == pytest.approx(tuple(map(float, clustered_ends(one, 1.959963984540054, 0.0))))


def test_a_change_of_a_whole_cluster_is_one_change() -> None:
    """Nothing changed in 400 clusters of 8: what 400 items would say, and not what 3,200 would."""
    found = weigh(np.ones(3200), np.ones(3200), np.repeat(np.arange(400), 8).tolist())
    assert found.ninety == pytest.approx(verdict_interval(Counts(400, 0, 0))) and found.design_effect == 8


def test_shares_that_do_not_change_are_not_certainty() -> None:
    same = np.full(100, 0.3)
    assert weigh(same, same).ninety.upper == pytest.approx(verdict_interval(Counts(100, 0, 0)).upper)
    assert verdict_of(weigh(same, same).ninety, 1.0) == "undecided"


def test_log_likelihoods_have_students_interval_in_their_own_unit() -> None:
    from scipy.stats import ttest_rel

    random = np.random.default_rng(5)
    a = random.normal(-40, 10, 80)
    b = a - random.normal(3, 1, 80)
    found, theirs = weigh(a, b), ttest_rel(a, b).confidence_interval(0.95)
    assert (
        not found.bounded
        and found.counts is None
        and found.drop == pytest.approx((a - b).mean())
        and found.drop > 2
    )
    assert found.ninety_five == pytest.approx((theirs.low, theirs.high), rel=1e-6)
    by_document = weigh(a, b, np.repeat(np.arange(40), 2).tolist())
    assert by_document.clusters == 40 and by_document.drop == found.drop
    few = weigh(a[:20], b[:20])
    assert few.standard_error is None and few.ninety_five == (-np.inf, np.inf)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        weigh([1.0, np.nan], [1.0, 1.0])
