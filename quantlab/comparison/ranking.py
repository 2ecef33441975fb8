"""Which variant is closest: by divergence first, by paired tasks among those that its intervals do not tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from quantlab.comparison.load import ModelRecords
from quantlab.comparison.noise import MINIMUM_WINDOWS, interval
from quantlab.comparison.references import against_another
from quantlab.names import parse_variant
from quantlab.numbers import listing, points
from quantlab.records import Estimate
from quantlab.reporting.table import Row


class Place(NamedTuple):
    """A variant and those whose intervals meet its own, in the order of their paired drops."""

    variants: tuple[str, ...]
    drops_points: tuple[float | None, ...]
    closest: str
    """By the mean divergence."""


def ranking(records: ModelRecords, rows: Sequence[Row]) -> list[Place]:
    """The closest first. A place begins with its closest variant and holds those whose 95 % intervals of the divergence
    meet that one's, which is not to say that they meet each other's.

    A variant without a drop stands last in its place; one that was measured against another reference has none. All saw
    the same windows, so intervals that meet claim less than a comparison window by window could.
    """
    known = _known(records)
    drops = {str(row.values["variant"]): row.number("mean_drop_points") for row in rows}
    groups: list[list[str]] = []
    for slug in sorted(known, key=lambda slug: known[slug].value):
        met = groups and _low(known[slug]) <= _high(known[groups[-1][0]])
        groups[-1].append(slug) if met else groups.append([slug])
    found = []
    for group in groups:
        order = sorted(group, key=lambda slug: (drops.get(slug) is None, drops.get(slug) or 0.0, known[slug].value))
        found.append(Place(tuple(order), tuple(drops.get(slug) for slug in order), group[0]))
    return found


def _known(records: ModelRecords) -> dict[str, Estimate]:
    odd, known = against_another(records), {}
    for slug, variant in records.variants.items():
        kl = variant.divergence.kl_divergence_nats if variant.divergence else None
        if kl and not variant.failure and parse_variant(slug).bits < 16 and slug not in odd:
            known[slug] = kl
    return known


def ranking_findings(records: ModelRecords, rows: Sequence[Row]) -> Iterable[str]:
    """The order in one sentence, and in others what intervals of the divergence leave open."""
    places = ranking(records, rows)
    if sum(len(place.variants) for place in places) < 2:
        return
    order = ", ".join(" = ".join(place.variants) for place in places)
    bare = [slug for slug, kl in _known(records).items() if not interval(kl)]
    how = f" By the means alone, with no interval below {MINIMUM_WINDOWS} windows: {listing(bare)}." if bare else ""
    yield f"From the closest to the unquantized model to the farthest, by mean KL divergence: {order}.{how}"
    shared = [place for place in places if len(place.variants) > 1]
    for place in shared:
        shown = [
            f"{slug} ({points(drop)})" if drop is not None else slug for slug, drop in zip(place.variants, place.drops_points, strict=True)
        ]
        others = listing(slug for slug in place.variants if slug != place.closest)
        yield (
            f"{place.closest} is not told apart from {others}: the 95 % intervals of their mean KL divergence meet. These stand in the "
            f"order of their mean drops in points, {', '.join(shown)}; no difference between two of the drops was tested."
        )
    if shared:
        yield "All variants saw the same windows: a comparison window by window could tell more of them apart than these intervals do."


def _low(estimate: Estimate) -> float:
    bounds = interval(estimate)
    return bounds.low if bounds else estimate.value


def _high(estimate: Estimate) -> float:
    bounds = interval(estimate)
    return bounds.high if bounds else estimate.value
