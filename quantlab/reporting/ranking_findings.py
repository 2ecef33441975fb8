"""Sentences about the order of the variants, and what intervals of the divergence leave open."""

from __future__ import annotations

from collections.abc import Iterable

from quantlab.comparison.compare import Comparison
from quantlab.comparison.noise import MINIMUM_WINDOWS
from quantlab.comparison.ranking import Place
from quantlab.numbers import listing, points


def ranking_findings(comparison: Comparison) -> Iterable[str]:
    """The order in one sentence, and in others what the intervals do not decide."""
    ranked = [slug for slug in comparison.variants for place in comparison.ranking if slug in place.variants]
    if len(ranked) < 2:
        return
    order = ", ".join(" = ".join(place.variants) for place in comparison.ranking)
    bare = [slug for slug in ranked if not comparison.variants[slug].divergence.interval]
    how = f" By the means alone, with no interval below {MINIMUM_WINDOWS} windows: {listing(bare)}." if bare else ""
    yield f"From the closest to the unquantized model to the farthest, by mean KL divergence: {order}.{how}"
    shared = [place for place in comparison.ranking if len(place.variants) > 1]
    yield from map(_overlap, shared)
    if shared:
        yield ("All variants saw the same windows: a comparison window by window could tell more of them apart than these intervals do.")


def _overlap(place: Place) -> str:
    drops = zip(place.variants, place.drops_points, strict=True)
    shown = [f"{slug} ({points(drop)})" if drop is not None else slug for slug, drop in drops]
    others = listing(slug for slug in place.variants if slug != place.closest)
    return (
        f"{place.closest} is not told apart from {others}: the 95 % intervals of their mean KL divergence meet. "
        f"These stand in the order of their mean drops in points, {', '.join(shown)}; "
        "no difference between two of the drops was tested."
    )
