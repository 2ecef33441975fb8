"""Stopping early: false verdicts under the looks, and the items that it saves. Seeded simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from quantlab.analysis.sequential import boundaries, fractions_of, looks
from quantlab.analysis.stopping import after
from quantlab.analysis.tango import limits
from quantlab.analysis.verdict import Counts

RUNS = 4000


def _simulate(
    total: int, flips: float, drop: float, margin: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each run: 1 where it stopped with `within margin`, 2 with `worse`, 0 with neither; and the items
    looked at."""
    plan = looks(total)
    random = np.random.default_rng(11)
    blocks = np.diff([0, *plan])
    draws = np.cumsum(
        [random.multinomial(n, [(flips + drop) / 2, (flips - drop) / 2, 1 - flips], RUNS) for n in blocks],
        axis=0,
    )
    said, items = np.zeros(RUNS, int), np.full(RUNS, total)
    for n, counts, z in zip(plan, draws, boundaries(fractions_of(plan, total)), strict=True):
        b, c = counts[:, 0].astype(float), counts[:, 1].astype(float)
        open_ = said == 0
        within, worse = limits(b + 0.5, c, n + 0.5, z)[1] < margin, limits(b, c + 0.5, n + 0.5, z)[0] > margin
        items[open_ & (within | worse)] = n
        said[open_ & within], said[open_ & worse] = 1, 2
    return said, items


@pytest.mark.parametrize(
    ("total", "flips", "margin"),
    [(500, 0.05, 0.02), (2000, 0.05, 0.01), (3000, 0.02, 0.01), (3000, 0.1, 0.02)],
)
def test_false_verdicts_under_the_looks(total: int, flips: float, margin: float) -> None:
    said, _ = _simulate(total, flips, margin, margin)
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)
    assert (said == 1).mean() <= most and (said == 2).mean() <= most


def test_clear_cases_are_settled_early_and_as_surely() -> None:
    for drop, verdict in ((0.0, 1), (0.06, 2)):
        said, items = _simulate(3000, 0.08, drop, 0.02)
        assert (said == verdict).mean() > 0.95
        assert items.mean() < 0.75 * 3000, "a quarter of the items saved at the least"


def test_a_look_by_hand() -> None:
    plan = looks(1000)
    open_ = after([Counts(plan[0], 8, 4)], 1000, 1.0)
    assert (open_.verdict, open_.final, open_.items) == ("undecided", False, 200) and "open" in open_.reason
    settled = after([Counts(plan[0], 60, 2), Counts(plan[1], 118, 5)], 1000, 1.0)
    assert (settled.verdict, settled.look, settled.items) == (
        "worse",
        1,
        200,
    ) and "look 1 of 5" in settled.reason
    last = after([Counts(n, n // 50, n // 100) for n in plan], 1000, 1.0)
    assert last.final and last.items == 1000 and last.reason == "open after all 1,000 items"
    with pytest.raises(ValueError, match="looks of 1000 items"):
        after([Counts(100, 1, 1)], 1000, 1.0)
