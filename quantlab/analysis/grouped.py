"""Compute the interval of a drop whose items come in clusters: a bootstrap, and Tango's interval by clusters.

A bootstrap knows only the clusters that it saw. Where few of them changed it is nearly of width 0 and says
`within margin` falsely in up to a third of cases (40 clusters of 8 items that change together, 4 % flips). So
the interval is the wider at each end of the bootstrap's and of Tango's with counts and items divided by the
size of a change, which is the design effect as if one cluster more had been seen to change as a whole: the
size of a whole cluster where nothing changed, and the design effect that was seen where much did."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantlab.analysis.tango import limits

RESAMPLES = 10_000
FAR = 3.0
"""Beyond so many standard errors the resamples have no tail, and their spread stands for it."""
SEED = 0

Floats = NDArray[np.float64]


class Groups(NamedTuple):
    """Differences per cluster, shape (..., clusters): any number of draws at once, with the sizes of one."""

    lost: Floats
    """Sum of the differences above 0: the answers that went from right to wrong."""
    won: Floats
    """Of those below 0, without their sign."""
    sizes: Floats
    """Items, shape (clusters,)."""

    @property
    def sums(self) -> Floats:
        return self.lost - self.won

    @property
    def drop(self) -> Floats:
        """Mean difference over all items, shape (...)."""
        mean: Floats = self.sums.sum(axis=-1) / self.sizes.sum()
        return mean


class Ends(NamedTuple):
    """Both ends of intervals, shape (...), not clipped to the scale."""

    lower: Floats
    upper: Floats


def group(difference: Floats, clusters: Sequence[Hashable] | None) -> Groups:
    """Differences of shape (items,) by cluster, in order of appearance; each its own where `clusters` is
    None.

    Raises ValueError where there is not one cluster per item.
    """
    if clusters is None:
        at, count = np.arange(len(difference)), len(difference)
    else:
        if len(clusters) != len(difference):
            raise ValueError(f"{len(clusters)} clusters for {len(difference)} items")
        places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
        at, count = np.array([places[cluster] for cluster in clusters]), len(places)
    lost, won, sizes = (
        _sums(at, of, count)
        for of in (np.maximum(difference, 0), np.maximum(-difference, 0), np.ones(len(at)))
    )
    return Groups(lost, won, sizes)


def _sums(at: NDArray[np.intp], values: Floats, count: int) -> Floats:
    return np.bincount(at, values, count).astype(np.float64)


def change_size(groups: Groups) -> Floats:
    """How many independent right-or-wrong items one change is worth, shape (...): squares over what Tango's
    variance takes.

    (sum of (s - d m)² + M²) / (sum of |x| - n d² + M): s a cluster's difference, m its size, d the drop, x an
    item's difference, M the size of the cluster of a random item. 1 for independent right or wrong answers.
    """
    whole = float((groups.sizes**2).sum() / groups.sizes.sum())
    drop, n = groups.drop, groups.sizes.sum()
    spread = ((groups.sums - drop[..., None] * groups.sizes) ** 2).sum(axis=-1)
    changes = (groups.lost + groups.won).sum(axis=-1) - n * drop**2
    size: Floats = (spread + whole**2) / (changes + whole)
    return size


def tango_ends(groups: Groups, size: Floats, z: float, extra: float) -> Ends:
    """Tango's interval with counts and items divided by `size`; `extra` changes more speak against each
    end."""
    b, c, n = groups.lost.sum(axis=-1) / size, groups.won.sum(axis=-1) / size, groups.sizes.sum() / size
    return Ends(limits(b, c + extra, n + extra, z)[0], limits(b + extra, c, n + extra, z)[1])


def bootstrap_ends(groups: Groups, z: float) -> Ends:
    """Percentiles of the drop over resamples of whole clusters, seeded; the same resamples for all draws."""
    from scipy.stats import norm

    sums = groups.sums.reshape(-1, len(groups.sizes))
    # Clusters that are alike are drawn together: the same distribution, at a cost that does not grow with
    # their number.
    kinds, times = np.unique(np.vstack([sums, groups.sizes]), axis=1, return_counts=True)
    drawn = (
        np.random.default_rng(SEED)
        .multinomial(times.sum(), times / times.sum(), RESAMPLES)
        .astype(np.float64)
    )
    drops = (kinds[:-1] @ drawn.T) / (drawn @ kinds[-1])
    if z > FAR:
        middle, reach = drops.mean(axis=-1), z * drops.std(axis=-1, ddof=1)
        low, high = middle - reach, middle + reach
    else:
        share = float(norm.sf(z))
        low, high = np.quantile(drops, [share, 1 - share], axis=-1)
    return Ends(low.reshape(groups.drop.shape), high.reshape(groups.drop.shape))


def clustered_ends(groups: Groups, z: float, extra: float) -> Ends:
    """The hull of both, for right or wrong answers in any number of draws."""
    tango, drawn = (
        tango_ends(groups, np.maximum(1.0, change_size(groups)), z, extra),
        bootstrap_ends(groups, z),
    )
    return Ends(np.minimum(tango.lower, drawn.lower), np.maximum(tango.upper, drawn.upper))
