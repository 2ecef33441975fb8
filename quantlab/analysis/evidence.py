"""Estimate a drop and its interval from two checkpoints' values on the same items, for any metric and
grouping.

Right and wrong answers to independent items: Tango's interval. Items that come in clusters (questions on one
passage, several samples of one question): `quantlab.analysis.grouped`. Shares between 0 and 1: a t interval
of the paired differences, by cluster, and never narrower than Tango's with changes of the size that was seen.
Any other metric (log-likelihoods, perplexities): the t interval alone, in the metric's own unit."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantlab.analysis.clustered import MIN_CLUSTERS
from quantlab.analysis.grouped import (
    RESAMPLES,
    SEED,
    Ends,
    Groups,
    change_size,
    clustered_ends,
    group,
    tango_ends,
)
from quantlab.analysis.paired import compare_means
from quantlab.analysis.tango import Interval, interval
from quantlab.analysis.verdict import (
    DECIDING,
    Z05,
    Counts,
    items_to_decide,
    mcnemar_p,
    minimum_detectable_drop,
    verdict_interval,
)

_Z95 = 1.959963984540054
_HALF = 0.5
"""Half a change more against each end of the interval that a verdict is read from, as in
`verdict_interval`."""

Floats = NDArray[np.float64]


class Evidence(NamedTuple):
    """A drop of a metric between 0 and 1, as a share, above 0 where the variant is worse.

    Where `bounded` is False the metric has no such scale: the drop is reference - variant in the metric's own
    unit, its sign says nothing of better or worse, and no margin in points applies to it."""

    n: int
    drop: float
    standard_error: float | None
    """Of the drop, by cluster; None where the clusters are too few for one."""
    ninety: Interval
    """What the verdict is read from."""
    ninety_five: Interval
    p: float
    """Two-sided, of no difference: McNemar's exact, by sign flips of whole clusters, or Student's t."""
    counts: Counts | None
    """None where the metric is not right or wrong."""
    clusters: int
    """How many independent units; `n` where the items are independent."""
    design_effect: float
    """Variance of the drop over what it would be with independent items; at least 1. Of right or wrong
    answers it is as if one cluster more had changed as a whole, so that it is a cluster's size where nothing
    changed."""
    bounded: bool = True
    """Whether every value lies between 0 and 1."""

    @property
    def minimum_detectable_drop(self) -> float | None:
        """The drop that a one-sided 5 % test finds with power 80 %, as a share; None where nothing is known
        of the spread."""
        if self.counts:
            return minimum_detectable_drop(self.counts) * math.sqrt(self.design_effect)
        return math.sqrt(DECIDING) * self.standard_error if self.standard_error is not None else None

    def items_to_decide(self, margin_points: float) -> int | None:
        """About how many items would decide at the margin; None where nothing is known of the spread."""
        if self.counts:
            return math.ceil(items_to_decide(self.counts, margin_points) * self.design_effect)
        if self.standard_error is None:
            return None
        return max(1, math.ceil(DECIDING * self.n * (100 * self.standard_error / margin_points) ** 2))


def weigh(
    reference: ArrayLike, variant: ArrayLike, clusters: Sequence[Hashable] | None = None, z: float = Z05
) -> Evidence:
    """Values of shape (items,), with each item's cluster; `z` is above 1.645 where an evaluation was ended
    early.

    Below 30 clusters, where items come in clusters or are not right or wrong, the intervals say that nothing
    is known. Raises ValueError for values that are no pair or not finite."""
    difference = compare_means(reference, variant).difference
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(variant, dtype=np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a value is not finite")
    groups = group(a - b, clusters)
    n, k = len(a), len(groups.sizes)
    values = np.concatenate([a, b])
    bounded = bool(values.min() >= 0 and values.max() <= 1)
    counts = (
        Counts(n, int(groups.lost.sum()), int(groups.won.sum()))
        if bounded and bool(np.isin(values, (0, 1)).all())
        else None
    )
    effect = _design_effect(a - b, groups, counts is not None)
    if k < MIN_CLUSTERS and not (counts and k == n):
        reach = 1.0 if bounded else math.inf
        anything = Interval(-reach, reach)
        return Evidence(n, difference, None, anything, anything, 1.0, counts, k, effect, bounded)
    error = _error(difference, groups.sums, groups.sizes) if k > 1 else None
    narrow, wide = _intervals(difference, groups, counts, bounded, z)
    p = _p_of_no_difference(difference, groups, counts)
    return Evidence(n, difference, error, narrow, wide, p, counts, k, effect, bounded)


def _p_of_no_difference(drop: float, groups: Groups, counts: Counts | None) -> float:
    if counts is None:
        return _student_p(drop, groups)
    if len(groups.sizes) == counts.n:
        return mcnemar_p(counts.right_to_wrong, counts.wrong_to_right)
    return _sign_flip_p(groups.sums)


def _intervals(
    drop: float, groups: Groups, counts: Counts | None, bounded: bool, z: float
) -> tuple[Interval, Interval]:
    """What the verdict is read from, and the 95 % interval, both wider where `z` is above 1.645."""
    wider = z * _Z95 / Z05
    if counts and len(groups.sizes) == counts.n:
        return verdict_interval(counts, z), interval(
            counts.right_to_wrong, counts.wrong_to_right, counts.n, _two_sided(wider)
        )
    if counts:
        return _clipped(clustered_ends(groups, z, _HALF)), _clipped(clustered_ends(groups, wider, 0.0))
    narrow, wide = (_student(drop, groups, at) for at in (z, wider))
    if not bounded:
        return narrow, wide
    size = change_size(groups)
    tango = (tango_ends(groups, size, z, _HALF), tango_ends(groups, size, wider, 0.0))
    return _clipped(narrow, tango[0]), _clipped(wide, tango[1])


def _clipped(*ends: Ends | Interval) -> Interval:
    """The widest, within the scale of a share."""
    return Interval(max(-1.0, min(float(e.lower) for e in ends)), min(1.0, max(float(e.upper) for e in ends)))


def _error(drop: float, sums: Floats, sizes: Floats) -> float:
    """Standard error of a mean over clusters of different sizes (Cochran, Sampling Techniques, equation
    6.13)."""
    k = len(sums)
    return (
        math.sqrt(k / (k - 1) * float(((sums - drop * sizes) ** 2).sum())) / float(sizes.sum())
        if k > 1
        else math.inf
    )


def _design_effect(difference: Floats, groups: Groups, right_or_wrong: bool) -> float:
    if len(groups.sizes) == len(difference):
        return 1.0
    if right_or_wrong:
        return max(1.0, float(change_size(groups)))
    drop = float(difference.mean())
    alone = _error(drop, difference, np.ones(len(difference)))
    return (
        max(1.0, (_error(drop, groups.sums, groups.sizes) / alone) ** 2)
        if math.isfinite(alone) and alone > 0
        else 1.0
    )


def _student(drop: float, groups: Groups, z: float) -> Interval:
    from scipy.stats import norm, t

    reach = float(t.isf(norm.sf(z), len(groups.sizes) - 1)) * _error(drop, groups.sums, groups.sizes)
    return Interval(drop - reach, drop + reach)


def _student_p(drop: float, groups: Groups) -> float:
    from scipy.stats import t

    error = _error(drop, groups.sums, groups.sizes)
    return float(2 * t.sf(abs(drop) / error, len(groups.sizes) - 1)) if error else float(drop == 0)


def _sign_flip_p(sums: Floats) -> float:
    """Two-sided p of no difference: whole clusters change their sign at random, in 10,000 seeded draws."""
    changed = sums[sums != 0]
    signs = np.random.default_rng(SEED).integers(0, 2, (RESAMPLES, len(changed))) * 2.0 - 1.0
    beyond = int((np.abs(signs @ changed) >= abs(float(changed.sum())) - 1e-9).sum())
    return (beyond + 1) / (RESAMPLES + 1)


def _two_sided(z: float) -> float:
    from scipy.stats import norm

    return float(1 - 2 * norm.sf(z))
