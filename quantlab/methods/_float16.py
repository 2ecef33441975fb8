"""Refuse a model whose activations float16 does not hold, where a method's kernels compute in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.errors import CellFailure
from quantlab.models.activations import FLOAT16, Largest, largest_activation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def require_float16(model: Any, token_ids: NDArray[np.int64], method: str, bits: int, device: str) -> None:
    """Run the unquantized model on a few tokens (length,). Raises CellFailure where its activations are more
    than float16 holds."""
    found = largest_activation(model, token_ids)
    if not found.fits_float16:
        raise too_large(found, method, bits, device)


def too_large(found: Largest, method: str, bits: int, device: str) -> CellFailure:
    """The failure, with the methods of the same width that keep the model's own dtype on the device."""
    others = " or ".join(instead_of(method, bits, device))
    use = f"use {others}, which compute in the model's own dtype" if others else "use another width"
    return CellFailure(
        "unsupported",
        f"{method} computes in float16 on {device}, and the unquantized model's {found.said()} at the most:"
        f" its logits would be no numbers; {use}",
    )


def instead_of(method: str, bits: int, device: str) -> tuple[str, ...]:
    """The methods that offer a width and do not compute in float16 on a device."""
    from quantlab import methods

    known = {name: methods.load(name) for name in methods.names() if name != method}
    return tuple(
        name
        for name, other in known.items()
        if bits in other.bits and other.changes_weights and other.forced_dtype(device) != FLOAT16
    )
