"""Compare two checkpoints on the same items, paired.

Included: the mean of per-item differences with its standard error, and the mean over tasks. Intervals, tests
and items that come in clusters are in `quantlab.analysis.evidence`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class PairedMean(NamedTuple):
    """Two checkpoints' values of a continuous metric on the same n items."""

    n: int
    difference: float
    """Mean of reference - variant, in the metric's unit."""
    standard_error: float | None
    """Of the mean difference, s / sqrt(n) with s from n - 1; None below two items."""


class MeanDrop(NamedTuple):
    """The plain mean of the drops of several tasks, each task counting alike."""

    points: float
    standard_error: float | None
    tasks: int


def compare_means(reference: ArrayLike, variant: ArrayLike) -> PairedMean:
    """Compare values, shape (items,), in any unit. Raises ValueError for other shapes."""
    a, b = _pair(reference, variant)
    difference = a - b
    n = len(difference)
    error = float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else None
    return PairedMean(n, float(difference.mean()), error)


def mean_drop(points: Sequence[float], standard_errors: Sequence[float | None]) -> MeanDrop:
    """Stratified mean over tasks: the mean of their drops, whose variance is the sum of theirs / tasks^2.

    The tasks' items are independent of each other, so no covariances enter (Cochran, Sampling Techniques,
    5.3, with equal weights). Raises ValueError without a task."""
    if not points or len(points) != len(standard_errors):
        raise ValueError("one standard error for each of one or more tasks")
    known = [error for error in standard_errors if error is not None]
    error = math.sqrt(sum(e * e for e in known)) / len(points) if len(known) == len(points) else None
    return MeanDrop(sum(points) / len(points), error, len(points))


def _pair(reference: ArrayLike, variant: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(variant, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"need two vectors of the same items, got shapes {a.shape} and {b.shape}")
    return a, b
