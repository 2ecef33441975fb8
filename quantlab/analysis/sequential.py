"""Compute boundaries for stopping early without more false verdicts: alpha spending over at most five looks.

Lan and DeMets, Biometrika 70 (1983), 659-663: the error that a two-sided or one-sided test may spend up to
the fraction t of its items is 2 - 2 Phi(z(alpha / 2) / sqrt(t)), of O'Brien and Fleming's type: little early,
nearly all at the end. The boundary of each look follows by integrating the score's distribution over those
that went on (Armitage, McPherson and Rowe 1969), here on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

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
        raise ValueError(f"{fraction} is no fraction of the items")
    return float(2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(fraction)))


@cache
def boundaries(fractions: tuple[float, ...], alpha: float = ALPHA) -> tuple[float, ...]:
    """The normal quantile of each look, for looks at these rising fractions of the items, the last of them 1
    or less.

    Raises ValueError for more than five looks or fractions that do not rise.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    if not 1 <= len(fractions) <= MAX_LOOKS or list(fractions) != sorted(set(fractions)):
        raise ValueError(f"looks are 1 to {MAX_LOOKS} rising fractions, not {fractions}")
    found: list[float] = []
    # Density of the sum S(t) = Z sqrt(t) of those that went on, on a grid of S; increments are normal with
    # variance t - t'.
    grid = density = np.empty(0)
    before, used = 0.0, 0.0
    for fraction in fractions:
        root, step = np.sqrt(fraction), np.sqrt(fraction - before)
        budget = spent(fraction, alpha) - used

        def beyond(
            z: float,
            root: float = root,
            step: float = step,
            grid: NDArray[np.float64] = grid,
            density: NDArray[np.float64] = density,
        ) -> float:
            if not len(grid):
                return float(norm.sf(z))
            return float(np.trapezoid(density * norm.sf((z * root - grid) / step), grid))

        z = (
            _FAR
            if budget <= beyond(_FAR)
            else float(brentq(lambda z, b=budget, f=beyond: f(z) - b, -_FAR, _FAR))
        )
        found.append(z)
        used += beyond(z)
        to = np.linspace(-_FAR * root, z * root, _GRID)
        if len(grid):
            density = np.array([np.trapezoid(density * norm.pdf((s - grid) / step) / step, grid) for s in to])
        else:
            density = norm.pdf(to / step) / step
        grid, before = to, fraction
    return tuple(found)


def looks(items: int, count: int = MAX_LOOKS) -> list[int]:
    """The items seen at each look: equal blocks, the last look at all of them."""
    return sorted({max(1, round(items * k / count)) for k in range(1, count + 1)})


def fractions_of(items: Sequence[int], total: int) -> tuple[float, ...]:
    """Looks as fractions of all items."""
    return tuple(n / total for n in items)
