"""Compute boundaries for stopping early without more false verdicts: alpha spending over at most five looks.

Lan and DeMets, Biometrika 70 (1983), 659-663: the error that a two-sided or one-sided test may spend up to
the fraction t of its items is 2 - 2 Phi(z(alpha / 2) / sqrt(t)), of O'Brien and Fleming's type: little early,
nearly all at the end. The boundary of each look follows by integrating the score's distribution over those
that went on (Armitage, McPherson and Rowe 1969), here on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_LOOKS = 5
ALPHA = 0.05
"""One-sided, as in the 90 % interval of a verdict."""
_GRID, _FAR = 2001, 8.0


def spent(fraction: float, alpha: float = ALPHA) -> float:
    """The one-sided error that may have been spent at this fraction of the items."""
    from scipy.stats import norm

    if not 0 < fraction <= 1:
        raise ValueError(f"{fraction} is outside 0 to 1: it cannot be a share of the items")
    return float(2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(fraction)))


@cache
def boundaries(fractions: tuple[float, ...], alpha: float = ALPHA) -> tuple[float, ...]:
    """The normal quantile of each look, for looks at these rising fractions of the items, the last of them 1
    or less.

    Raises ValueError for more than five looks or fractions that do not rise.
    """
    if not 1 <= len(fractions) <= MAX_LOOKS or list(fractions) != sorted(set(fractions)):
        raise ValueError(f"looks are 1 to {MAX_LOOKS} rising fractions, not {fractions}")
    quantiles: list[float] = []
    path, used = _Path(0.0, np.empty(0), np.empty(0)), 0.0
    for fraction in fractions:
        z = path.quantile(fraction, spent(fraction, alpha) - used)
        quantiles.append(z)
        used += path.beyond(z, fraction)
        path = path.went_on(z, fraction)
    return tuple(quantiles)


class _Path(NamedTuple):
    """The evaluations that no look has ended yet: the density of their sum S(t) = Z sqrt(t) on a grid of S.

    Increments are normal with variance t - t'."""

    fraction: float
    grid: NDArray[np.float64]
    """Empty before the first look."""
    density: NDArray[np.float64]

    def beyond(self, z: float, fraction: float) -> float:
        """How many of all of them lie above the quantile z at the next look."""
        from scipy.stats import norm

        if not len(self.grid):
            return float(norm.sf(z))
        root, step = np.sqrt(fraction), np.sqrt(fraction - self.fraction)
        return float(np.trapezoid(self.density * norm.sf((z * root - self.grid) / step), self.grid))

    def quantile(self, fraction: float, budget: float) -> float:
        """The quantile that the budget of the next look lies above."""
        from scipy.optimize import brentq

        if budget <= self.beyond(_FAR, fraction):
            return _FAR
        return float(brentq(lambda z: self.beyond(z, fraction) - budget, -_FAR, _FAR))

    def went_on(self, z: float, fraction: float) -> _Path:
        """Those that go on after the next look ended what lies above z."""
        from scipy.stats import norm

        root, step = np.sqrt(fraction), np.sqrt(fraction - self.fraction)
        sums = np.linspace(-_FAR * root, z * root, _GRID)
        if not len(self.grid):
            return _Path(fraction, sums, norm.pdf(sums / step) / step)
        reached = [
            np.trapezoid(self.density * norm.pdf((s - self.grid) / step) / step, self.grid) for s in sums
        ]
        return _Path(fraction, sums, np.array(reached))


def looks(items: int, count: int = MAX_LOOKS) -> list[int]:
    """The items seen at each look: equal blocks, the last look at all of them."""
    return sorted({max(1, round(items * k / count)) for k in range(1, count + 1)})


def fractions_of(items: Sequence[int], total: int) -> tuple[float, ...]:
    """Looks as fractions of all items."""
    return tuple(n / total for n in items)
