"""Judge a loss at a margin from a paired comparison of right and wrong answers.

Definitions: a drop is (b - c) / n, b answers right in the unquantized model and wrong in the variant, c the
other way round. The verdict comes from the two-sided 90 % interval [L, U] of the drop: `within margin` where
U < margin, `worse` where L > margin, `undecided` otherwise. No verdict says that there is no loss."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from quantlab.analysis.tango import Array, Interval, interval, limits

Verdict = Literal["within margin", "worse", "undecided"]
MARGIN_POINTS = 1.0
Z05, _Z20 = 1.6448536269514722, 0.8416212335729143
"""One-sided 5 %, and power 80 %."""
DECIDING = (Z05 + _Z20) ** 2
"""6.18: items that decide at a margin are this × flips / margin²."""


class Counts(NamedTuple):
    """Two checkpoints' answers on the same n items."""

    n: int
    right_to_wrong: int
    wrong_to_right: int

    @property
    def drop(self) -> float:
        """(b - c) / n."""
        return (self.right_to_wrong - self.wrong_to_right) / self.n

    @property
    def flips(self) -> float:
        """(b + c) / n."""
        return (self.right_to_wrong + self.wrong_to_right) / self.n


def verdict_interval(counts: Counts, z: float = Z05) -> Interval:
    """The interval that a verdict is read from: Tango's, each end with half an item more that speaks against
    the claim.

    Tango's own 90 % interval is right on average over the unknown share of flips, not for each: where the
    drop is the margin of 1 point it says `worse` in up to 8.9 % of cases (n = 300, flips 1.5 %), because the
    counts are whole numbers. With half a right-to-wrong item more for the upper end, and half a
    wrong-to-right item more for the lower, no false verdict is above 5 % for n from 100 to 10,000 and flips
    from 1 to 20 % (summed exactly in the tests, for one task of independent items)."""
    b, c, n = counts.right_to_wrong, counts.wrong_to_right, counts.n
    lower, upper = float(limits(b, c + 0.5, n + 0.5, z)[0]), float(limits(b + 0.5, c, n + 0.5, z)[1])
    return Interval(lower, upper)


def verdict_of(ninety: Interval, margin_points: float) -> Verdict:
    """The verdict of a two-sided 90 % interval of the drop (`verdict_interval`, `pooled`), as a share."""
    if 100 * ninety.upper < margin_points:
        return "within margin"
    return "worse" if 100 * ninety.lower > margin_points else "undecided"


def pooled(tasks: Sequence[Counts], confidence: float) -> Interval:
    """The interval of the mean drop over tasks that count alike, from each task's score interval.

    MOVER: Zou and Donner, Statistics in Medicine 27 (2008), 1693-1702, equations 4 and 5, for a sum of
    independent estimates. With one task it is Tango's interval. Raises ValueError without a task."""
    if not tasks:
        raise ValueError("no task to pool")
    ends = [interval(task.right_to_wrong, task.wrong_to_right, task.n, confidence) for task in tasks]
    return mean_interval([task.drop for task in tasks], ends)


def mean_interval(drops: Sequence[float], ends: Sequence[Interval]) -> Interval:
    """The interval of the mean of independent drops from each one's own (MOVER, see `pooled`)."""
    lower, upper = mean_ends(drops, [end.lower for end in ends], [end.upper for end in ends])
    return Interval(float(lower), float(upper))


def mean_ends(drops: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> tuple[Array, Array]:
    """The same for many sets of drops at once: shape (tasks, ...) each, both ends of shape (...)."""
    d, low, high = (np.asarray(value, dtype=np.float64) for value in (drops, lower, upper))
    mean, tasks = d.mean(axis=0), len(d)
    below, above = (np.sqrt(((d - end) ** 2).sum(axis=0)) / tasks for end in (low, high))
    return np.maximum(-1.0, mean - below), np.minimum(1.0, mean + above)


def mcnemar_p(right_to_wrong: int, wrong_to_right: int) -> float:
    """McNemar's exact two-sided p: min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)]); 1 where nothing
    changed."""
    from scipy.stats import binomtest

    changed = right_to_wrong + wrong_to_right
    return float(binomtest(min(right_to_wrong, wrong_to_right), changed).pvalue) if changed else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p values of several tasks of one variant (Holm 1979): the k-th smallest of m times
    m - k + 1, never below the one before it and at most 1.

    Not statsmodels' `multipletests`: it collects garbage at every call, a second where a model is loaded.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def minimum_detectable_drop(counts: Counts) -> float:
    """The drop that a one-sided 5 % test finds with power 80 %: 2.49 sqrt(flips / n).

    Where nothing changed, flips stand at the one-sided 95 % upper bound z² / (n + z²) and not at 0.
    """
    return (Z05 + _Z20) * math.sqrt(max(counts.flips, _none_changed(counts.n)) / counts.n)


def items_to_decide(counts: Counts, margin_points: float = MARGIN_POINTS) -> int:
    """About how many items decide at the margin: 6.18 × flips / margin², flips at the upper end of their 90 %
    interval.

    Where nothing changed, as many as bound the drop below the margin if nothing changes on them either: the
    least n at which `verdict_interval` of (0, 0) ends below it, 361 at 1 point. Tango's own would be z² (1 /
    margin - 1) = 268, an exact binomial bound ln 0.05 / ln 0.99 = 299; the half change against the claim asks
    for more."""
    from statsmodels.stats.proportion import proportion_confint

    margin = margin_points / 100
    least = _items_without_a_change(margin)
    changed = counts.right_to_wrong + counts.wrong_to_right
    if not changed:
        return least
    upper = float(proportion_confint(changed, counts.n, alpha=0.10, method="wilson")[1])
    return max(least, math.ceil(DECIDING * upper / margin**2))


@functools.cache
def _items_without_a_change(margin: float) -> int:
    """The fewest items on which no change at all gives `within margin`."""
    low, high = 1, 2
    while verdict_interval(Counts(high, 0, 0)).upper >= margin:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if verdict_interval(Counts(middle, 0, 0)).upper < margin else (middle, high)
    return high


def _none_changed(n: int) -> float:
    """Upper end of Tango's 90 % interval where nothing changed."""
    return float(limits(0, 0, n, Z05)[1])
