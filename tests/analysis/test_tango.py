"""Tango's interval: closed forms, symmetry, and its true coverage by summing over every outcome."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from quantlab.analysis.tango import interval, limits, score

Z95 = 1.959963984540054


@pytest.mark.parametrize("n", [10, 100, 3000])
@pytest.mark.parametrize("z", [1.6448536269514722, Z95])
def test_without_a_change_it_is_closed_form(n: int, z: float) -> None:
    lower, upper = limits(0, 0, n, z)
    assert float(upper) == pytest.approx(z**2 / (n + z**2), rel=1e-6) and float(lower) == pytest.approx(
        -float(upper), rel=1e-6
    )


def test_the_ends_solve_the_score_equation_and_hold_the_estimate() -> None:
    random = np.random.default_rng(0)
    n = random.integers(20, 2000, 200)
    b, c = (random.random(200) * n / 3).astype(int), (random.random(200) * n / 3).astype(int)
    lower, upper = limits(b, c, n, Z95)
    assert ((lower < (b - c) / n) & ((b - c) / n < upper)).all()
    assert np.allclose(score(lower, b, c, n), Z95, atol=1e-6) and np.allclose(
        score(upper, b, c, n), -Z95, atol=1e-6
    )


def test_the_hypothesis_of_no_difference_is_mcnemars() -> None:
    assert float(score(0.0, 30, 12, 500)) == pytest.approx((30 - 12) / np.sqrt(30 + 12))


def test_swapping_mirrors_it_and_everything_changed_stays_on_the_scale() -> None:
    there, back = interval(9, 3, 200), interval(3, 9, 200)
    assert there.lower == pytest.approx(-back.upper) and there.upper == pytest.approx(-back.lower)
    whole = interval(40, 0, 40)
    assert whole.upper == 1.0 and 0.8 < whole.lower < 1.0


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(b: int, c: int, n: int) -> None:
    with pytest.raises(ValueError, match="cannot have changed"):
        interval(b, c, n)


def _coverage(n: int, flips: float, drop: float) -> float:
    """P(the 95 % interval holds the drop), by summing over every (b, c) that matters: no sampling error."""
    most = int(binom.ppf(1 - 1e-7, n, flips))
    b, c = (grid.ravel() for grid in np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij"))
    b, c = b[b + c <= most], c[b + c <= most]
    chance = multinomial.pmf(
        np.stack([b, c, n - b - c], axis=1), n, [(flips + drop) / 2, (flips - drop) / 2, 1 - flips]
    )
    kept = chance > 1e-12
    lower, upper = limits(b[kept], c[kept], n, Z95)
    return float(chance[kept][(lower <= drop) & (drop <= upper)].sum())


@pytest.mark.parametrize("n", [100, 200, 500, 1000, 3000])
@pytest.mark.parametrize("flips", [0.01, 0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_coverage(n: int, flips: float, share: float) -> None:
    """94 to 96 % where 50 items change or more at n >= 1,000; at least 94 % elsewhere."""
    covered = _coverage(n, flips, share * flips)
    assert covered >= 0.94
    if n >= 1000 and n * flips >= 50:
        assert covered <= 0.96
