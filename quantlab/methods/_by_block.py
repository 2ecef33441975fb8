"""Say what memory methods need that hold the unquantized model in the machine's memory and bring one block at
a time to the device."""

from __future__ import annotations

from quantlab.methods._contract import Needs

_SOURCE_BYTES = 2
"""Of a weight of the unquantized model."""


def needs_by_block(parameters: int, bits: int) -> Needs:
    """The whole model in the machine, and on the device no more than the checkpoint, when it is loaded
    again."""
    return Needs(device_bytes=parameters * bits // 8, host_bytes=_SOURCE_BYTES * parameters)
