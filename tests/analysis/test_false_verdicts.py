"""How often a verdict is false, summed exactly over every outcome: at most 5 % where the drop is exactly the
margin."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, multinomial

from quantlab.analysis.tango import limits
from quantlab.analysis.verdict import Counts, mean_ends, mean_interval, verdict_interval

Z90 = 1.6448536269514722
Floats = NDArray[np.float64]


def _outcomes(n: int, flips: float, drop: float) -> tuple[Floats, Floats, Floats]:
    """Every (b, c) that matters and its probability."""
    most = int(binom.ppf(1 - 1e-7, n, flips))
    b, c = (grid.ravel() for grid in np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij"))
    b, c = b[b + c <= most], c[b + c <= most]
    chance = multinomial.pmf(
        np.stack([b, c, n - b - c], axis=1), n, [(flips + drop) / 2, (flips - drop) / 2, 1 - flips]
    )
    kept = chance > 1e-12
    return b[kept].astype(float), c[kept].astype(float), chance[kept]


@pytest.mark.parametrize("n", [100, 200, 300, 500, 1000, 3000, 10_000])
@pytest.mark.parametrize("flips", [0.0101, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2])
def test_false_verdicts_at_the_margin(n: int, flips: float) -> None:
    margin = 0.01
    b, c, chance = _outcomes(n, flips, margin)
    upper, lower = limits(b + 0.5, c, n + 0.5, Z90)[1], limits(b, c + 0.5, n + 0.5, Z90)[0]
    assert chance[upper < margin].sum() <= 0.05, "within margin, falsely"
    assert chance[lower > margin].sum() <= 0.05, "worse, falsely"


def test_the_interval_is_the_one_summed_above() -> None:
    found = verdict_interval(Counts(300, 7, 2))
    assert found.upper == pytest.approx(
        float(limits(7.5, 2, 300.5, Z90)[1])
    ) and found.lower == pytest.approx(float(limits(7, 2.5, 300.5, Z90)[0]))


@pytest.mark.parametrize("margin", [0.01, 0.03])
def test_false_pooled_verdicts_at_the_margin(margin: float) -> None:
    """Two tasks of different size and flips, whose mean drop is the margin: simulated, seeded."""
    random, runs = np.random.default_rng(5), 4000
    tasks = [(200, 0.08, 1.5 * margin), (400, 0.05, 0.5 * margin)]
    draws = [random.multinomial(n, [(f + d) / 2, (f - d) / 2, 1 - f], runs) for n, f, d in tasks]
    lower, upper = [], []
    for (n, _, _), draw in zip(tasks, draws, strict=True):
        b, c = draw[:, 0].astype(float), draw[:, 1].astype(float)
        lower.append(limits(b, c + 0.5, n + 0.5, Z90)[0])
        upper.append(limits(b + 0.5, c, n + 0.5, Z90)[1])
    low, high = mean_ends(
        [(draw[:, 0] - draw[:, 1]) / n for (n, _, _), draw in zip(tasks, draws, strict=True)], lower, upper
    )
    first = [Counts(n, *map(int, draw[0][:2])) for (n, _, _), draw in zip(tasks, draws, strict=True)]
    assert mean_interval([c.drop for c in first], [verdict_interval(c) for c in first]) == pytest.approx(
        (low[0], high[0])
    )
    # three standard errors of the simulation above 5 %
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert (high < margin).mean() <= most and (low > margin).mean() <= most
    assert (low > margin).sum() > 0
