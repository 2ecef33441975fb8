"""Bytes of a checkpoint before it is made: what each method stores for each matrix, and what it leaves alone."""

from __future__ import annotations

from typing import Any, Literal

from quantlab.planning.counts import ParameterCount
from quantlab.records import Frozen


class WeightBytes(Frozen):
    """What a checkpoint's tensors take; tokenizer and configuration files are not in it."""

    bytes_total: int
    bytes_quantized: int
    """Codes, scales, zero points, indices and codebooks of the quantized matrices."""
    bytes_unquantized: int
    bits_per_weight: float
    """Of the whole model: 8 * bytes_total / parameters."""
    quantized_bits_per_weight: float | None
    """Of the quantized matrices alone; None for a 16-bit variant."""
    how: Literal["formula", "quoted"]
    """formula: from every matrix's shape; quoted: bits per weight of published files times the parameters (no shapes known)."""
    expert_bytes: int = 0
    """The part of bytes_total in routed experts."""
    embedding_bytes: int = 0
    """The part in the input embedding, of which one token reads one row (0 where it is tied: the head reads all of it)."""
    notes: tuple[str, ...] = ()
    """What a reader must know, one sentence each."""


def weight_bytes(count: ParameterCount, method: str, bits: int, settings: Any = None) -> WeightBytes | None:
    """Bytes of the model quantized by a method of this package; `settings` is the method's own Settings, or None.

    None where the method does not offer the width. Raises QuantlabError for an unknown method.
    """
    raise NotImplementedError
