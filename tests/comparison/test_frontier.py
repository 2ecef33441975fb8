"""The Pareto frontier by hand, and of compared variants."""

from __future__ import annotations

import pytest

from quantlab.comparison.compare import Comparison
from quantlab.comparison.divergences import DivergenceComparison
from quantlab.comparison.footprint import Saving
from quantlab.comparison.frontier import Point, pareto_frontier, pareto_point
from quantlab.comparison.noise import Floor
from quantlab.records import Estimate


def test_frontier_by_hand() -> None:
    points = tuple(
        Point(name, size, loss, loss)
        for name, size, loss in [
            ("a", 10, 1.0),
            ("b", 20, 0.5),
            ("c", 20, 0.7),
            ("d", 30, 0.5),
            ("e", 40, 0.1),
        ]
    )
    assert [p.variant for p in pareto_frontier(points)] == ["a", "b", "e"]


def test_below_the_floor_the_smaller_one_wins() -> None:
    points = (Point("floor", 40, 0.001, 0.001), Point("hidden", 20, 0.0012, 0.001))
    assert [p.variant for p in pareto_frontier(points)] == ["hidden"]


@pytest.mark.parametrize(
    ("nats", "distinguishable", "loss"),
    [(0.5, True, 0.5), (0.5, None, 0.5), (0.02, False, 0.01), (0.005, None, 0.01)],
)
def test_a_divergence_that_is_noise_counts_as_the_floor(
    nats: float, distinguishable: bool | None, loss: float
) -> None:
    estimate = Estimate(value=nats, standard_error=None, n=10)
    divergence = DivergenceComparison(
        estimate, None, None, Floor(0.01, 0.01, None), distinguishable, None, None
    )
    assert pareto_point("a-4", Saving(10, None, None), divergence) == Point("a-4", 10, nats, loss)


def test_a_variant_without_a_size_or_a_divergence_has_no_point(compared: Comparison) -> None:
    there = {point.variant for point in compared.points}
    assert "awq-2" not in there and "gptq-4" in there
    assert {point.variant for point in compared.frontier} <= there
