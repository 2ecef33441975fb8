"""Rank variants by divergence, and those whose intervals of the divergence overlap by their paired task
drops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from quantlab.comparison.divergences import DivergenceComparison


class Rankable(NamedTuple):
    """What a variant is ranked by."""

    divergence: DivergenceComparison
    mean_drop_points: float | None

    @property
    def nats(self) -> float:
        """The mean divergence, which every ranked variant has."""
        assert self.divergence.estimate is not None
        return self.divergence.estimate.value


class Place(NamedTuple):
    """A variant and those whose intervals overlap its own, in the order of their paired drops."""

    variants: tuple[str, ...]
    drops_points: tuple[float | None, ...]
    closest: str
    """By the mean divergence."""


def ranking(known: Mapping[str, Rankable]) -> tuple[Place, ...]:
    """The closest first. A place begins with its closest variant and holds those whose 95 % intervals of the
    divergence overlap that one's; they need not overlap each other's.

    A variant without a drop stands last in its place. All saw the same windows, so overlapping intervals
    claim less than a comparison window by window could."""
    groups: list[list[str]] = []
    for slug in sorted(known, key=lambda slug: known[slug].nats):
        if groups and _meet(known[slug], known[groups[-1][0]]):
            groups[-1].append(slug)
        else:
            groups.append([slug])
    return tuple(_place(group, known) for group in groups)


def _meet(farther: Rankable, closest: Rankable) -> bool:
    low, high = farther.divergence.bounds, closest.divergence.bounds
    return low is not None and high is not None and low.low <= high.high


def _place(group: list[str], known: Mapping[str, Rankable]) -> Place:
    drops = {slug: known[slug].mean_drop_points for slug in group}
    order = sorted(group, key=lambda slug: (drops[slug] is None, drops[slug] or 0.0, known[slug].nats))
    return Place(tuple(order), tuple(drops[slug] for slug in order), group[0])
