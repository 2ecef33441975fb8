"""Looks at an unfinished comparison: the literature's boundaries, and the error that is really made under
them."""

from __future__ import annotations

import numpy as np
import pytest

from quantlab.analysis.sequential import boundaries, fractions_of, looks, spent
from quantlab.analysis.tango import limits

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def test_the_boundaries_are_the_literatures() -> None:
    # Lan-DeMets, O'Brien-Fleming type, two-sided 5 % (one-sided 2.5 %), five equal looks, as tabulated by
    # Jennison and
    # Turnbull, Group Sequential Methods (1999), table 7.1's spending with rho -> O'Brien-Fleming: 4.877,
    # 3.357, 2.680, ...
    assert boundaries(FIFTHS, 0.025) == pytest.approx((4.877, 3.357, 2.680, 2.290, 2.031), abs=0.002)


def test_one_look_is_the_fixed_test_and_all_of_the_error_is_spent() -> None:
    assert boundaries((1.0,)) == pytest.approx((1.6449,), abs=1e-3)
    assert spent(1.0) == pytest.approx(0.05) and spent(0.2) < 0.0001 < spent(0.5) < 0.01


@pytest.mark.parametrize("fractions", [(), (0.5, 0.4), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)])
def test_looks_that_make_no_sense_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rising fractions"):
        boundaries(fractions)


def test_looks_are_blocks_of_all_items() -> None:
    assert looks(500) == [100, 200, 300, 400, 500] and looks(3) == [1, 2, 3]
    assert fractions_of([100, 500], 500) == (0.2, 1.0)


def simulate(
    flips: float, drop: float, items: int, runs: int, margin: float = 0.01, seed: int = 0
) -> tuple[float, float, float]:
    """Shares of runs that end with `within margin` and with `worse`, and the share of the items that they
    looked at."""
    random = np.random.default_rng(seed)
    chances = [(flips + drop) / 2, (flips - drop) / 2, 1 - flips]
    seen = looks(items)
    blocks = random.multinomial(np.diff([0, *seen]), chances, size=(runs, len(seen)))
    counts = blocks.cumsum(axis=1)
    within, worse, used = np.zeros(runs, bool), np.zeros(runs, bool), np.full(runs, items)
    for k, (n, z) in enumerate(zip(seen, boundaries(fractions_of(seen, items)), strict=True)):
        lower, upper = limits(counts[:, k, 0], counts[:, k, 1], n, z)
        going = ~(within | worse)
        ends = going & ((upper < margin) | (lower > margin))
        within |= going & (upper < margin)
        worse |= going & ~(upper < margin) & (lower > margin)
        used[ends] = n
    return float(within.mean()), float(worse.mean()), float(used.mean() / items)


@pytest.mark.parametrize("flips", [0.02, 0.05, 0.1])
def test_false_verdicts_under_looks(flips: float) -> None:
    """Where the drop is exactly the margin; 5 % each, and the simulation's own error of 20,000 runs."""
    within, worse, _ = simulate(flips, 0.01, 5000, 20_000)
    assert within <= 0.055 and worse <= 0.055


def test_clear_cases_stop_early() -> None:
    within, worse, used = simulate(0.05, 0.0, 10_000, 2000)
    assert within > 0.99 and worse < 0.001 and used < 0.7
    within, worse, used = simulate(0.2, 0.1, 10_000, 2000)
    assert worse == 1.0 and used <= 0.25
