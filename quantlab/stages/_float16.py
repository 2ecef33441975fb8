"""Say why a checkpoint's logits are no numbers: the unquantized model's activations may be more than float16
holds, and then nothing is wrong with the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlab.engines._transformers.placement import placement
from quantlab.errors import CellFailure, QuantlabError
from quantlab.hardware.device import Device
from quantlab.hardware.target import require_memory
from quantlab.methods._float16 import too_large
from quantlab.models.activations import FLOAT16, Largest, largest_activation
from quantlab.outside import as_failure
from quantlab.scratch import scratch
from quantlab.stages._reload import NotFinite
from quantlab.workspace.cell import Cell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def explained(cell: Cell, device: Device, failure: NotFinite, token_ids: NDArray[np.int64]) -> CellFailure:
    """The failure of a checkpoint whose logits of token ids (length,) are not finite, after a look at the
    unquantized model."""
    if not cell.prepared.source().parameters:
        return failure
    try:
        found = _of_unquantized(cell, device, token_ids)
    except (CellFailure, QuantlabError, MemoryError, RuntimeError) as error:
        known = as_failure(error)
        why = known.reason if known else " ".join(str(error).split())[:200]
        more = f"; the unquantized model's activations were not looked at: {why}"
        return CellFailure(failure.kind, failure.reason + more)
    if found.fits_float16:
        return failure
    if failure.dtype.startswith(FLOAT16):
        return too_large(found, cell.variant.method, cell.variant.bits, device.device)
    return CellFailure(
        failure.kind,
        f"{failure.reason}; the unquantized model's {found.said()} at the most: a kernel that computes in it"
        " would do that",
    )


def _of_unquantized(cell: Cell, device: Device, token_ids: NDArray[np.int64]) -> Largest:
    """Its largest activation, in its own dtype on the device."""
    import torch

    from quantlab.models.loading import load_model

    source = cell.prepared.source()
    dtype = getattr(torch, source.dtype)
    require_memory(device, source.parameters * dtype.itemsize, "the unquantized model")
    with scratch(cell.root) as offload:
        places = placement(device.device, str(offload))
        model = load_model(cell.prepared.weights, source.trust_remote_code, dtype=dtype, **places)
        return largest_activation(model.eval(), token_ids)
