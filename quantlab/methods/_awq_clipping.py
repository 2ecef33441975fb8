"""Let GPTQModel search AWQ's clipping for matrices of any number of rows.

It searches rows in batches of 64, only to bound the memory, and ends the process at a matrix whose rows are
no multiple of that. Rows are clipped independently of each other, so a last batch that is filled up with
copies of the last row gives the same bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BATCH_ROWS = 64


@contextmanager
def any_rows() -> Iterator[None]:
    """Fill up the last batch of rows, during the block."""
    import torch
    from gptqmodel.looper.awq_processor import AWQProcessor

    search = AWQProcessor._compute_best_clip

    def filled(processor: Any, weight: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        rows = weight.shape[0]
        if more := -rows % BATCH_ROWS:
            weight = torch.cat([weight, weight[-1:].expand(more, -1)])
        bounds: torch.Tensor = search(processor, weight, *given, **options)
        return bounds[:rows]

    AWQProcessor._compute_best_clip = filled
    try:
        yield
    finally:
        AWQProcessor._compute_best_clip = search
