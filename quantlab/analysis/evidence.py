"""What two checkpoints' values on the same items say about a drop, whatever the metric and however the items are grouped.

Right and wrong answers to independent items: Tango's interval. Items that come in clusters (questions on one passage,
several samples of one question): a bootstrap over clusters, never narrower than Tango's, which does not collapse where
few answers change. Any other metric: a t interval of the paired differences, by cluster.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantlab.analysis.clustered import MIN_CLUSTERS
from quantlab.analysis.paired import compare_means
from quantlab.analysis.tango import Interval, interval
from quantlab.analysis.verdict import DECIDING, Z05, Counts, items_to_decide, mcnemar_p, minimum_detectable_drop, verdict_interval

RESAMPLES = 10_000
_SEED = 0
_Z95 = 1.959963984540054
_NOTHING_KNOWN = Interval(-1.0, 1.0)

Floats = NDArray[np.float64]


class Evidence(NamedTuple):
    """A drop of a metric between 0 and 1, as a share, above 0 where the variant is worse."""

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
    """Variance of the drop over what it would be with independent items; at least 1."""

    @property
    def minimum_detectable_drop(self) -> float | None:
        """The drop that a one-sided 5 % test finds with power 80 %, as a share; None where nothing is known of the spread."""
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


def weigh(reference: ArrayLike, variant: ArrayLike, clusters: Sequence[Hashable] | None = None, z: float = Z05) -> Evidence:
    """Values of shape (items,), with each item's cluster; `z` is above 1.645 where an evaluation was ended early.

    Below 30 clusters, where items come in clusters, the intervals say that nothing is known. Raises ValueError for
    values that are no pair.
    """
    difference = compare_means(reference, variant).difference
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(variant, dtype=np.float64)
    sums, sizes = _by_cluster(a - b, clusters)
    n, k = len(a), len(sums)
    right_or_wrong = set(np.unique(a)) | set(np.unique(b)) <= {0.0, 1.0}
    counts = Counts(n, int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())) if right_or_wrong else None
    effect = _design_effect(a - b, sums, sizes)
    wider = z * _Z95 / Z05
    if k < MIN_CLUSTERS and not (counts and k == n):
        return Evidence(n, difference, None, _NOTHING_KNOWN, _NOTHING_KNOWN, 1.0, counts, k, effect)
    error = _error(difference, sums, sizes) if k > 1 else None
    if not counts:
        narrow, wide = (_student(difference, sums, sizes, at) for at in (z, wider))
        return Evidence(n, difference, error, narrow, wide, _student_p(difference, sums, sizes), None, k, effect)
    narrow = verdict_interval(counts, z)
    wide = interval(counts.right_to_wrong, counts.wrong_to_right, n, _two_sided(wider))
    if k == n:
        return Evidence(n, difference, error, narrow, wide, mcnemar_p(counts.right_to_wrong, counts.wrong_to_right), counts, n, 1.0)
    drawn = _bootstrap(sums, sizes)
    return Evidence(n, difference, error, _hull(narrow, drawn, z), _hull(wide, drawn, wider), _sign_flip_p(sums), counts, k, effect)


def _by_cluster(difference: Floats, clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sums of the differences and sizes, by cluster."""
    if clusters is None:
        return difference, np.ones(len(difference))
    if len(clusters) != len(difference):
        raise ValueError(f"{len(clusters)} clusters for {len(difference)} items")
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    at = np.array([places[cluster] for cluster in clusters])
    return np.bincount(at, difference, len(places)).astype(np.float64), np.bincount(at, minlength=len(places)).astype(np.float64)


def _error(drop: float, sums: Floats, sizes: Floats) -> float:
    """Standard error of a mean over clusters of different sizes (Cochran, Sampling Techniques, equation 6.13)."""
    k = len(sums)
    return math.sqrt(k / (k - 1) * float(((sums - drop * sizes) ** 2).sum())) / float(sizes.sum()) if k > 1 else math.inf


def _design_effect(difference: Floats, sums: Floats, sizes: Floats) -> float:
    alone = _error(float(difference.mean()), difference, np.ones(len(difference)))
    return max(1.0, (_error(float(difference.mean()), sums, sizes) / alone) ** 2) if math.isfinite(alone) and alone > 0 else 1.0


def _student(drop: float, sums: Floats, sizes: Floats, z: float) -> Interval:
    from scipy.stats import norm, t

    reach = float(t.isf(norm.sf(z), len(sums) - 1)) * _error(drop, sums, sizes)
    return Interval(max(-1.0, drop - reach), min(1.0, drop + reach))


def _student_p(drop: float, sums: Floats, sizes: Floats) -> float:
    from scipy.stats import t

    error = _error(drop, sums, sizes)
    return float(2 * t.sf(abs(drop) / error, len(sums) - 1)) if error else float(drop == 0)


def _bootstrap(sums: Floats, sizes: Floats) -> Floats:
    """The drop of each resample of whole clusters, seeded."""
    random, k = np.random.default_rng(_SEED), len(sums)
    times = random.multinomial(k, np.full(k, 1 / k), RESAMPLES)
    found: Floats = (times @ sums) / (times @ sizes)
    return found


def _hull(tango: Interval, drawn: Floats, z: float) -> Interval:
    """The wider of both at each end; beyond 3 standard errors the resamples have no tail and their spread stands for it."""
    from scipy.stats import norm

    share = float(norm.sf(z))
    far = z * float(drawn.std(ddof=1))
    low, high = np.quantile(drawn, [share, 1 - share]) if z <= 3 else (drawn.mean() - far, drawn.mean() + far)
    return Interval(max(-1.0, min(tango.lower, float(low))), min(1.0, max(tango.upper, float(high))))


def _sign_flip_p(sums: Floats) -> float:
    """Two-sided p of no difference: whole clusters change their sign at random, in 10,000 seeded draws."""
    changed = sums[sums != 0]
    signs = np.random.default_rng(_SEED).integers(0, 2, (RESAMPLES, len(changed))) * 2.0 - 1.0
    beyond = int((np.abs(signs @ changed) >= abs(float(changed.sum())) - 1e-9).sum())
    return (beyond + 1) / (RESAMPLES + 1)


def _two_sided(z: float) -> float:
    from scipy.stats import norm

    return float(1 - 2 * norm.sf(z))
