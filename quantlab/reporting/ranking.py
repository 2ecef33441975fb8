"""Which variant is closest: by divergence first, by paired tasks among those that divergence cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from quantlab.names import parse_variant
from quantlab.records import Estimate
from quantlab.reporting.load import ModelRecords
from quantlab.reporting.noise import interval
from quantlab.reporting.numbers import listing, points
from quantlab.reporting.table import Row


class Place(NamedTuple):
    """Variants that divergence cannot tell apart, in the order of their paired drops."""

    variants: tuple[str, ...]
    drops_points: tuple[float | None, ...]


def ranking(records: ModelRecords, rows: Sequence[Row]) -> list[Place]:
    """The closest first. Two variants cannot be told apart where their 95 % intervals of the divergence meet.

    A place begins with its closest variant and holds those whose intervals meet that one's. A variant without a drop
    stands last in its place.
    """
    known: dict[str, Estimate] = {}
    for slug, variant in records.variants.items():
        kl = variant.divergence.kl_divergence_nats if variant.divergence else None
        if kl and not variant.failure and parse_variant(slug).bits < 16:
            known[slug] = kl
    drops = {str(row.values["variant"]): row.number("mean_drop_points") for row in rows}
    groups: list[list[str]] = []
    for slug in sorted(known, key=lambda slug: known[slug].value):
        met = groups and _low(known[slug]) <= _high(known[groups[-1][0]])
        groups[-1].append(slug) if met else groups.append([slug])
    found = []
    for group in groups:
        order = sorted(group, key=lambda slug: (drops.get(slug) is None, drops.get(slug) or 0.0, known[slug].value))
        found.append(Place(tuple(order), tuple(drops.get(slug) for slug in order)))
    return found


def ranking_findings(records: ModelRecords, rows: Sequence[Row]) -> Iterable[str]:
    """The order in one sentence, and in another what divergence leaves open."""
    places = ranking(records, rows)
    if sum(len(place.variants) for place in places) < 2:
        return
    order = ", ".join(" = ".join(place.variants) for place in places)
    yield f"From the closest to the unquantized model to the farthest, by KL divergence: {order}."
    for place in places:
        if len(place.variants) > 1:
            shown = [f"{slug} ({points(drop)})" if drop is not None else slug for slug, drop in zip(*place, strict=True)]
            yield (
                f"Divergence cannot tell {listing(place.variants)} apart (their 95 % intervals meet): they stand in the order of their "
                f"paired mean drops in points, {', '.join(shown)}; a difference between these is one only where a verdict says so."
            )


def _low(estimate: Estimate) -> float:
    bounds = interval(estimate)
    return bounds.low if bounds else estimate.value


def _high(estimate: Estimate) -> float:
    bounds = interval(estimate)
    return bounds.high if bounds else estimate.value
