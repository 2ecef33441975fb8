"""The Pareto frontier, and labels that do not cover each other."""

from __future__ import annotations

from itertools import combinations

from quantlab.comparison.frontier import Point, pareto_frontier
from quantlab.reporting.canvas import new_figure
from quantlab.reporting.labels import Label, place_labels


def test_frontier_by_hand() -> None:
    points = tuple(
        Point(name, size, loss, loss)
        for name, size, loss in [("a", 10, 1.0), ("b", 20, 0.5), ("c", 20, 0.7), ("d", 30, 0.5), ("e", 40, 0.1)]
    )
    assert [p.variant for p in pareto_frontier(points)] == ["a", "b", "e"]


def test_below_the_floor_the_smaller_one_wins() -> None:
    points = (Point("floor", 40, 0.001, 0.001), Point("hidden", 20, 0.0012, 0.001))
    assert [p.variant for p in pareto_frontier(points)] == ["hidden"]


def test_labels_of_close_points_do_not_overlap() -> None:
    with new_figure(8, 5) as figure:
        axes = figure.add_subplot()
        axes.set_xlim(0, 10)
        axes.set_ylim(0, 10)
        place_labels(axes, [Label(5 + 0.05 * n, 5 + 0.05 * (n % 3), f"method-{n}-label", "black") for n in range(12)])
        boxes = [text.get_window_extent() for text in axes.texts]
        window = axes.get_window_extent()
    assert len(boxes) == 12
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(window.contains(*corner) for box in boxes for corner in box.corners())
