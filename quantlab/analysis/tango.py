"""Compute Tango's score interval for the difference of two paired proportions.

Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
design", Statistics in Medicine 17 (1998), 891-908. Wald's interval has a width near 0 where few answers
change and then says "no loss" falsely; the score interval has not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A confidence interval; each end in the unit of its estimate."""

    lower: float
    upper: float


def score(difference: ArrayLike, b: ArrayLike, c: ArrayLike, n: ArrayLike) -> Array:
    """The score statistic of the hypothesis that the proportions differ by `difference`, standard normal
    under it.

    b of n items changed from right to wrong, c from wrong to right; (b - c - n d) / sqrt(n (2 q + d (1 -
    d))), with q the maximum-likelihood estimate of the share of c under the hypothesis (Tango 1998, equation
    26)."""
    d, b, c, n = (np.asarray(value, dtype=np.float64) for value in (difference, b, c, n))
    linear, constant = -b - c + (2 * n - b + c) * d, -c * d * (1 - d)
    q = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * (2 * np.maximum(q, 0) + d * (1 - d))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic: Array = (b - c - n * d) / np.sqrt(np.maximum(variance, 0))
    return np.where(np.isnan(statistic), 0.0, statistic)


def limits(b: ArrayLike, c: ArrayLike, n: ArrayLike, z: ArrayLike) -> tuple[Array, Array]:
    """Both ends of the interval of (b - c) / n at the normal quantile z (1.96 for 95 %, two-sided),
    elementwise."""
    from scipy.optimize import elementwise

    b, c, n, z = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (b, c, n, z)))
    estimate = (b - c) / n

    def end(sign: float) -> Array:
        # the score falls with the difference: it is -z at the upper end, z at the lower; at the end of the
        # scale the
        # interval ends with it
        def beyond(d: Array, *args: Any) -> Array:
            distance: Array = score(d, *args[:3]) + sign * args[3]
            return distance

        edge = np.full_like(estimate, sign * (1 - 1e-12))
        start = np.clip(estimate, -(1 - 1e-9), 1 - 1e-9)
        root = elementwise.find_root(
            beyond, (np.minimum(start, edge), np.maximum(start, edge)), args=(b, c, n, z)
        )
        return np.where(root.success, root.x, sign)

    return end(-1.0), end(1.0)


def interval(b: int, c: int, n: int, confidence: float = 0.95) -> Interval:
    """The two-sided interval of (b - c) / n. Raises ValueError for counts that are none."""
    from scipy.stats import norm

    if not (n > 0 and b >= 0 and c >= 0 and b + c <= n):
        raise ValueError(f"{b} and {c} of {n} items cannot have changed")
    lower, upper = limits(b, c, n, float(norm.ppf((1 + confidence) / 2)))
    return Interval(float(lower), float(upper))
