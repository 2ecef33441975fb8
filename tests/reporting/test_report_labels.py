"""Labels of a plot do not cover each other."""

from __future__ import annotations

from itertools import combinations

from quantlab.reporting.canvas import new_figure
from quantlab.reporting.labels import Label, place_labels


def test_labels_of_close_points_do_not_overlap() -> None:
    with new_figure(8, 5) as figure:
        axes = figure.add_subplot()
        axes.set_xlim(0, 10)
        axes.set_ylim(0, 10)
        place_labels(
            axes, [Label(5 + 0.05 * n, 5 + 0.05 * (n % 3), f"method-{n}-label", "black") for n in range(12)]
        )
        boxes = [text.get_window_extent() for text in axes.texts]
        window = axes.get_window_extent()
    assert len(boxes) == 12
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(window.contains(*corner) for box in boxes for corner in box.corners())
