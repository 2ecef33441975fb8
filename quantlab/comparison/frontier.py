"""The Pareto frontier of quality loss over disk size: variants that no other beats in both.

By the measured means. A divergence that cannot be told from the noise floor counts as the floor: there nothing is closer.
"""

from __future__ import annotations

from typing import NamedTuple

from quantlab.reporting.table import Table


class Point(NamedTuple):
    """A variant with both coordinates measured."""

    variant: str
    disk_bytes: int
    kl_divergence_nats: float
    """As measured."""
    loss_nats: float
    """The divergence, or its noise floor where the two cannot be told apart."""


def pareto_points(summary: Table) -> tuple[Point, ...]:
    """Every variant that has a size and a divergence."""
    points = []
    for row in summary.rows:
        size, kl, floor = (row.values[key] for key in ("disk_bytes", "kl_divergence_nats", "noise_floor_nats"))
        if isinstance(size, int) and isinstance(kl, float):
            hidden = isinstance(floor, float) and (kl < floor or row.values["distinguishable"] is False)
            points.append(Point(str(row.values["variant"]), size, kl, float(str(floor)) if hidden else kl))
    return tuple(points)


def pareto_frontier(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Those with no other that is at most as large and at most as lossy and better in one, smallest first."""
    return tuple(sorted((p for p in points if not any(_beats(q, p) for q in points)), key=lambda p: (p.disk_bytes, p.loss_nats)))


def _beats(a: Point, b: Point) -> bool:
    as_good = a.disk_bytes <= b.disk_bytes and a.loss_nats <= b.loss_nats
    return as_good and (a.disk_bytes, a.loss_nats) != (b.disk_bytes, b.loss_nats)
