"""Compute the median of repeated timings and an interval that assumes no distribution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from quantlab.records.measured import Median

_COVERAGE = 0.95


def median(samples: Sequence[float]) -> Median | None:
    """The median and [x(k), x(n+1-k)]; see `quantlab.records.measured.Median` for k. None without samples.

    Source: David and Nagaraja, Order Statistics, 3rd edition (2003), 7.1; the events "at least k samples lie
    below the median" are binomial with p = 1/2."""
    if not samples:
        return None
    ordered, n = sorted(samples), len(samples)
    k = max((k for k in range(1, (n + 1) // 2 + 1) if _coverage(n, k) >= _COVERAGE), default=1)
    return Median(
        value=statistics.median(ordered),
        low=ordered[k - 1],
        high=ordered[n - k],
        coverage=_coverage(n, k),
        n=n,
    )


def _coverage(n: int, k: int) -> float:
    """P[x(k) <= median <= x(n+1-k)] = 1 - 2 P[Binomial(n, 1/2) < k]."""
    return float(1 - 2 * sum(math.comb(n, j) for j in range(k)) / 2**n)


def paired_ratio(samples: Sequence[float], other_samples: Sequence[float]) -> Median | None:
    """Median of the ratios variant / baseline over pairs measured one after the other; None where the counts
    differ."""
    if len(samples) != len(other_samples):
        return None
    return median([a / b for a, b in zip(samples, other_samples, strict=True)])
