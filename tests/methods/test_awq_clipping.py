"""AWQ's clipping of matrices whose rows are no multiple of GPTQModel's batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quantlab.methods._awq_clipping import BATCH_ROWS, any_rows


def _bounds(weight: torch.Tensor) -> torch.Tensor:
    """What GPTQModel's search finds, with groups of 32 columns at 4 bits."""
    from gptqmodel.looper.awq_processor import AWQProcessor

    processor = AWQProcessor.__new__(AWQProcessor)
    settings: Any = SimpleNamespace(group_size=32, bits=4, sym=False)
    processor.qcfg = settings
    inputs = torch.randn(16, weight.shape[1], generator=torch.Generator().manual_seed(1))
    bounds: torch.Tensor = AWQProcessor._compute_best_clip(processor, weight, inputs)
    return bounds


@pytest.mark.parametrize("rows", [40, 96])
def test_rows_have_the_bounds_that_they_have_in_a_whole_batch(rows: int) -> None:
    weight = torch.randn(2 * BATCH_ROWS, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError):
        _bounds(weight[:rows])
    with any_rows():
        found = _bounds(weight[:rows])
    assert found.shape[0] == rows
    assert torch.equal(found, _bounds(weight)[:rows])
    with pytest.raises(AssertionError):
        _bounds(weight[:rows])
