"""Compare the experts that two runs of a mixture send the same tokens to, as sets: neither the order of the
experts nor their weights count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.analysis import clustered
from quantlab.records import RoutingChanges

Whole = NDArray[np.integer[Any]]


def kept_type(experts: int) -> np.dtype[Any]:
    """The smallest type that numbers so many experts."""
    return np.min_scalar_type(max(experts - 1, 0))


def as_sets(chosen: Whole, experts: int) -> Whole:
    """Chosen experts (..., per token) sorted, in the smallest type: 1 byte each up to 256 experts."""
    return np.sort(chosen, axis=-1).astype(kept_type(experts))


def replaced(reference: Whole, variant: Whole) -> NDArray[np.int64]:
    """How many of each token's experts are not among the reference's: sets (..., per token) to (...)."""
    kept = (reference[..., :, None] == variant[..., None, :]).any(axis=-2)
    count: NDArray[np.int64] = (~kept).sum(axis=-1)
    return count


def summarize(
    counts: NDArray[np.floating[Any]], blocks: Sequence[int], experts: int, per_token: int
) -> RoutingChanges:
    """The shares of `replaced` experts, shape (blocks, windows, tokens), which may be mapped from a file."""
    windows = range(counts.shape[1])
    changed = np.stack([(counts[:, i] > 0).mean(axis=1) for i in windows])  # (windows, blocks)
    others = np.stack([counts[:, i].mean(axis=1, dtype=np.float64) / per_token for i in windows])
    by_block = changed.mean(axis=0)
    return RoutingChanges(
        experts=experts,
        experts_per_token=per_token,
        changed_token_share=clustered.mean(changed),
        replaced_expert_share=clustered.mean(others),
        changed_token_share_by_block={
            block: float(share) for block, share in zip(blocks, by_block, strict=True)
        },
    )
