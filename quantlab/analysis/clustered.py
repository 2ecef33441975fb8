"""Estimate means of values in clusters: tokens in windows, items in passages. Only clusters are
independent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.records import Estimate

MIN_CLUSTERS = 30
"""Below it no standard error is given: the clusters' means are too few."""
MIN_CLUSTERS_TAIL = 100
"""The same for percentiles in the tail, above the 90th."""
RESAMPLES = 400
_SEED = 0

Floats = NDArray[np.floating[Any]]


def mean(values: Floats) -> Estimate:
    """The mean of values (clusters, items), its standard error that of the clusters' means."""
    means = values.mean(axis=1, dtype=np.float64)
    error = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) >= MIN_CLUSTERS else None
    return Estimate(value=float(means.mean()), standard_error=error, n=len(means))


def ratio(sums: Floats, counts: Floats) -> Estimate:
    """sum / count over clusters of different sizes, shape (clusters,) each; standard error by linearization.

    Cochran, Sampling Techniques, 3rd edition, equation 6.13: the residuals are sums - ratio × counts.
    """
    n, total = len(sums), float(counts.sum())
    value = float(sums.sum()) / total
    residuals = sums - value * counts
    error = math.sqrt(n / (n - 1) * float((residuals**2).sum())) / total if n >= MIN_CLUSTERS else None
    return Estimate(value=value, standard_error=error, n=n)


def percentile(values: Floats, q: float) -> Estimate:
    """The q-th percentile of all values (clusters, items); standard error by a bootstrap over clusters,
    seeded."""
    n = len(values)
    value = float(np.percentile(values, q))
    if n < (MIN_CLUSTERS if q <= 90 else MIN_CLUSTERS_TAIL):
        return Estimate(value=value, standard_error=None, n=n)
    random = np.random.default_rng(_SEED)
    resampled = [np.percentile(values[random.integers(0, n, n)], q) for _ in range(RESAMPLES)]
    return Estimate(value=value, standard_error=float(np.std(resampled, ddof=1)), n=n)
