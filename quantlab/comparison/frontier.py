"""Find the Pareto frontier of quality loss over disk size: variants that no other beats in both.

By the measured means. A divergence that cannot be told from the noise floor counts as the floor: there
nothing is closer."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.comparison.divergences import DivergenceComparison
from quantlab.comparison.footprint import Saving


class Point(NamedTuple):
    """A variant with both coordinates measured."""

    variant: str
    disk_bytes: int
    kl_divergence_nats: float
    """As measured."""
    loss_nats: float
    """The divergence, or its noise floor where the two cannot be told apart."""


def pareto_point(slug: str, disk: Saving, divergence: DivergenceComparison) -> Point | None:
    """A variant's place; None where its size or its divergence is not measured."""
    if disk.bytes is None or divergence.estimate is None:
        return None
    nats, floor = divergence.estimate.value, divergence.floor.nats
    hidden = floor is not None and (nats < floor or divergence.distinguishable is False)
    return Point(slug, disk.bytes, nats, floor if hidden and floor is not None else nats)


def pareto_frontier(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Those with no other that is at most as large and at most as lossy and better in one, smallest first."""
    best = (point for point in points if not any(_beats(other, point) for other in points))
    return tuple(sorted(best, key=lambda point: (point.disk_bytes, point.loss_nats)))


def _beats(a: Point, b: Point) -> bool:
    as_good = a.disk_bytes <= b.disk_bytes and a.loss_nats <= b.loss_nats
    return as_good and (a.disk_bytes, a.loss_nats) != (b.disk_bytes, b.loss_nats)
