"""Place labels beside points without overlaps, with a thin line to a label that had to move away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RADII = (8.0, 14.0, 22.0, 32.0, 44.0, 58.0, 74.0, 92.0)
_ANGLES = (0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240, 15, 345, 165, 195)
_POINT_RADIUS = 6.0
_LEADER_FROM = 14.0
"""Labels this far or farther from their point, in typographic points, get a line to it."""


class Label(NamedTuple):
    """A text for the point (x, y) in data coordinates."""

    x: float
    y: float
    text: str
    colour: str


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.top, other.top) - max(self.bottom, other.bottom)
        return wide * high if wide > 0 and high > 0 else 0.0


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    paths: Sequence[Sequence[tuple[float, float]]] = (),
    size: float = 8.5,
) -> None:
    """Write the labels. `paths` are drawn lines, in data coordinates, that they keep off where they can; so
    they do off the legend.

    Greedy: each label takes the nearest of a ring of places that hits nothing, else the one that hits least.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    scale = figure.dpi / 72
    at = axes.transData.transform
    points = [tuple(float(v) for v in at((label.x, label.y))) for label in labels]
    taken = [_around(x, y, _POINT_RADIUS * scale) for x, y in points]
    taken += [box for path in paths for box in _along([tuple(map(float, at(p))) for p in path], 2 * scale)]
    if (legend := axes.get_legend()) is not None:
        taken.append(_Box(*legend.get_window_extent().extents))
    left, bottom, right, top = axes.get_window_extent().extents
    edge = 3 * scale
    inside = _Box(left + edge, bottom + edge, right - edge, top - edge)
    for (x, y), label in sorted(zip(points, labels, strict=True), key=lambda pair: (-pair[0][1], pair[0][0])):
        style: Any = {"fontsize": size, "color": label.colour, "va": "bottom"}
        text = axes.annotate(
            label.text, (label.x, label.y), xytext=(0, 0), textcoords="offset points", **style
        )
        extent = text.get_window_extent()
        box, dx, dy, radius = _best(x, y, extent.width, extent.height, scale, taken, inside)
        taken.append(box)
        text.set_position((dx / scale, dy / scale))
        if radius >= _LEADER_FROM:
            nearest = (min(max(x, box.left), box.right), min(max(y, box.bottom), box.top))
            end = axes.transData.inverted().transform(nearest)
            axes.plot(
                [label.x, end[0]], [label.y, end[1]], color=label.colour, linewidth=0.6, alpha=0.7, zorder=1.5
            )


def _best(
    x: float, y: float, wide: float, high: float, scale: float, taken: list[_Box], inside: _Box
) -> tuple[_Box, float, float, float]:
    """The box of the best place, the offset of its lower left corner in pixels, and its distance in
    typographic points."""
    best: tuple[float, _Box, float, float, float] | None = None
    for radius in _RADII:
        for angle in _ANGLES:
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            dx = radius * scale * cos - wide * (1 - cos) / 2
            dy = radius * scale * sin - high * (1 - sin) / 2
            box = _Box(x + dx - 1, y + dy - 1, x + dx + wide + 1, y + dy + high + 1)
            outside = wide * high - box.overlap(inside)
            cost = sum(box.overlap(other) for other in taken) + max(0.0, outside) * 10
            if best is None or cost < best[0] - 1e-6:
                best = (cost, box, dx, dy, radius)
        if best and best[0] <= wide * high * 0.02:
            break
    assert best
    return best[1:]


def _around(x: float, y: float, reach: float) -> _Box:
    return _Box(x - reach, y - reach, x + reach, y + reach)


def _along(path: Sequence[tuple[float, ...]], reach: float) -> list[_Box]:
    """Small boxes along a line."""
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(path):
        steps = max(1, int(math.hypot(x1 - x0, y1 - y0) / (2 * reach)))
        boxes += [
            _around(x0 + (x1 - x0) * s / steps, y0 + (y1 - y0) * s / steps, reach) for s in range(steps + 1)
        ]
    return boxes
