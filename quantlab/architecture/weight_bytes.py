"""Compute the bytes of a checkpoint's tensors from the bytes of each matrix, before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.frozen import Frozen

PLAIN_BYTES = 2
"""Of a weight that stays in 16 bits."""


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
    how: Literal["formula", "analogy"]
    """formula: from every matrix's shape; analogy: another model's bits per weight times the parameters (no
    shapes known)."""
    expert_bytes: int = 0
    """The part of bytes_total in routed experts."""
    embedding_bytes: int = 0
    """The part in the input embedding, of which one token reads one row (0 where it is tied: the head reads
    all of it)."""
    notes: tuple[str, ...] = ()
    """What a reader must know, one sentence each."""


def sum_up(
    count: ParameterCount,
    quantized_bytes: int,
    unquantized_bytes: int,
    quantized_weights: int,
    expert_bytes: int,
    embedding_bytes: int,
    notes: tuple[str, ...],
    aside: int = 0,
) -> WeightBytes:
    """Put the parts of a checkpoint together; `aside` parameters are in another file (a vision tower)."""
    total = quantized_bytes + unquantized_bytes
    return WeightBytes(
        bytes_total=total,
        bytes_quantized=quantized_bytes,
        bytes_unquantized=unquantized_bytes,
        bits_per_weight=8 * total / (count.total - aside),
        quantized_bits_per_weight=8 * quantized_bytes / quantized_weights if quantized_weights else None,
        how="formula",
        expert_bytes=expert_bytes,
        embedding_bytes=0 if count.tied else embedding_bytes,
        notes=notes,
    )


def plain_bytes(count: ParameterCount, notes: tuple[str, ...] = ()) -> WeightBytes:
    """Count the model in 16 bits."""
    total = PLAIN_BYTES * count.total + count.buffer_bytes
    experts = PLAIN_BYTES * count.by_role.get("expert", 0)
    return sum_up(count, 0, total, 0, experts, PLAIN_BYTES * count.embedding, notes)


def packed_bytes(
    count: ParameterCount, packed: Sequence[tuple[Matrix, int]], notes: tuple[str, ...] = ()
) -> WeightBytes:
    """Count a model of which some matrices are packed, each with the bytes of all its equals; the rest is in
    16 bits."""
    inside = sum(size for _, size in packed)
    weights = sum(m.parameters for m, _ in packed)
    expert_weights = sum(m.parameters for m, _ in packed if m.role == "expert")
    plain_experts = PLAIN_BYTES * (count.by_role.get("expert", 0) - expert_weights)
    experts = sum(size for m, size in packed if m.role == "expert") + plain_experts
    outside = PLAIN_BYTES * (count.total - weights) + count.buffer_bytes
    return sum_up(count, inside, outside, weights, experts, PLAIN_BYTES * count.embedding, notes)
