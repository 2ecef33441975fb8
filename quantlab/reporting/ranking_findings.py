"""Write the sentences about the order of the variants, and what intervals of the divergence leave open."""

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
    how = (
        f" Ordered by the mean alone, because fewer than {MINIMUM_WINDOWS} windows give no interval:"
        f" {listing(bare)}."
        if bare
        else ""
    )
    yield f"Order by mean KL divergence from the unquantized model, closest first: {order}.{how}"
    shared = [place for place in comparison.ranking if len(place.variants) > 1]
    yield from map(_overlap, shared)
    if shared:
        yield (
            "All variants share the same windows: a comparison window by window could separate more of them"
            " than these intervals."
        )


def _overlap(place: Place) -> str:
    drops = zip(place.variants, place.drops_points, strict=True)
    shown = [f"{slug} ({points(drop)})" if drop is not None else slug for slug, drop in drops]
    others = [slug for slug in place.variants if slug != place.closest]
    first = place.closest
    together = (
        f"{first} and {others[0]} overlap" if len(others) == 1 else f"{first} overlaps with {listing(others)}"
    )
    if all(drop is None for drop in place.drops_points):
        return f"{together} (95 % interval of the KL divergence), and none has a mean drop to order them by."
    return (
        f"{together} (95 % interval of the KL divergence). Ordered by their mean drops in points:"
        f" {', '.join(shown)}; the differences between the drops were not tested."
    )
