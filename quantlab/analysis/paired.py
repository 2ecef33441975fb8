"""Paired comparison of two checkpoints on the same items.

Included: counts of changed answers, the drop, and the standard error of a mean of per-item differences.
Not included: intervals, tests and verdicts (they need more than a standard error when few answers change),
and items that come in clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class PairedAccuracy(NamedTuple):
    """Two checkpoints' right (1) and wrong (0) answers on the same n items."""

    n: int
    right_to_wrong: int
    """b: items that the reference had right and the variant has wrong."""
    wrong_to_right: int
    """c: items that the reference had wrong and the variant has right."""

    @property
    def drop_points(self) -> float:
        """100 (b - c) / n: the loss of accuracy in percentage points, above 0 where the variant is worse."""
        return 100.0 * (self.right_to_wrong - self.wrong_to_right) / self.n

    @property
    def flips(self) -> float:
        """(b + c) / n: the share of items whose answer changed between right and wrong."""
        return (self.right_to_wrong + self.wrong_to_right) / self.n

    @property
    def standard_error_points(self) -> float | None:
        """Standard error of the drop in points; None below two items.

        The differences d are 1 on b items, -1 on c and 0 elsewhere, so their sample variance is
        ((b + c) - (b - c)^2 / n) / (n - 1), and the standard error of their mean its root over sqrt(n):
        the paired analysis of Miller 2024, "Adding Error Bars to Evals" (arXiv:2411.00640), section 4.2; the same
        variance with n for n - 1 stands in Agresti, Categorical Data Analysis, under McNemar's test.
        It is 0 where nothing changed, which says that the sample is small and not that the loss is.
        """
        if self.n < 2:
            return None
        b, c, n = self.right_to_wrong, self.wrong_to_right, self.n
        return 100.0 * math.sqrt(((b + c) - (b - c) ** 2 / n) / (n * (n - 1)))


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


def compare_accuracy(reference: ArrayLike, variant: ArrayLike) -> PairedAccuracy:
    """Compare answers, shape (items,), 1 right and 0 wrong. Raises ValueError for other values or shapes."""
    a, b = _pair(reference, variant)
    if not np.isin(a, (0.0, 1.0)).all() or not np.isin(b, (0.0, 1.0)).all():
        raise ValueError("answers are 0 or 1")
    return PairedAccuracy(len(a), int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum()))


def compare_means(reference: ArrayLike, variant: ArrayLike) -> PairedMean:
    """Compare values, shape (items,), in any unit. Raises ValueError for other shapes."""
    a, b = _pair(reference, variant)
    difference = a - b
    n = len(difference)
    error = float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else None
    return PairedMean(n, float(difference.mean()), error)


def mean_drop(points: Sequence[float], standard_errors: Sequence[float | None]) -> MeanDrop:
    """Stratified mean over tasks: the mean of their drops, whose variance is the sum of theirs / tasks^2.

    The tasks' items are independent of each other, so no covariances enter (Cochran, Sampling Techniques, 5.3,
    with equal weights). Raises ValueError without a task.
    """
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
