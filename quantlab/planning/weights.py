"""Bytes of a checkpoint before it is made: what each method stores for each matrix, and what it leaves alone."""

from __future__ import annotations

from typing import Any, Literal

from quantlab.architecture.counts import ParameterCount
from quantlab.errors import QuantlabError, unknown
from quantlab.formats import ggml as _ggml
from quantlab.frozen import Frozen
from quantlab.names import Variant
from quantlab.planning import _gguf
from quantlab.planning._layouts import LAYOUTS
from quantlab.planning._scope import quantized, remarks

_PLAIN_BYTES = 2
_TOWER = "The vision tower is not in it: llama.cpp keeps it in a file of its own (mmproj)."
_MODEL = "llama-3.1-70b"


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
    """formula: from every matrix's shape; analogy: another model's bits per weight times the parameters (no shapes known)."""
    expert_bytes: int = 0
    """The part of bytes_total in routed experts."""
    embedding_bytes: int = 0
    """The part in the input embedding, of which one token reads one row (0 where it is tied: the head reads all of it)."""
    notes: tuple[str, ...] = ()
    """What a reader must know, one sentence each."""


def weight_bytes(count: ParameterCount, method: str, bits: int, settings: Any = None) -> WeightBytes | None:
    """Bytes of the model quantized by a method of this package; `settings` is the method's own Settings, or None.

    None where the method does not offer the width. Raises QuantlabError for an unknown method, or one whose layout is
    not known here.
    """
    from quantlab import methods

    module = methods.load(method)
    if bits not in module.BITS:
        return None
    chosen = module.Settings() if settings is None else settings
    if not count.tensors:
        return _by_analogy(count, method, bits, settings)
    if method == "baseline":
        return _sixteen_bit(count)
    if method == "gguf":
        return _of_gguf(count, str(methods.effective(Variant(method, bits), chosen)["type"]))
    if method not in LAYOUTS:
        raise unknown("layout of method", method, [*LAYOUTS, "baseline", "gguf"], "its bytes cannot be planned; quantize to learn them")
    return _of_layout(count, method, bits, chosen)


def _sixteen_bit(count: ParameterCount) -> WeightBytes:
    total = _PLAIN_BYTES * count.total + count.buffer_bytes
    note = ("A release that is stored in fewer bits becomes this large when it is dequantized to 16 bits.",) if count.experts else ()
    experts = _PLAIN_BYTES * count.by_role.get("expert", 0)
    return _made(count, 0, total, 0, experts, _PLAIN_BYTES * count.embedding, note)


def _of_layout(count: ParameterCount, method: str, bits: int, settings: Any) -> WeightBytes:
    """safetensors: packed matrices by the library's layout, the rest in the source's 16 bits."""
    packed = [(m, LAYOUTS[method](m, bits, settings) * m.how_many) for m in count.tensors if quantized(count, method, m)]
    inside = sum(size for _, size in packed)
    weights = sum(m.parameters for m, _ in packed)
    expert_weights = sum(m.parameters for m, _ in packed if m.role == "expert")
    experts = sum(size for m, size in packed if m.role == "expert") + _PLAIN_BYTES * (count.by_role.get("expert", 0) - expert_weights)
    outside = _PLAIN_BYTES * (count.total - weights) + count.buffer_bytes
    said = remarks(count, method, getattr(settings, "group_size", None))
    return _made(count, inside, outside, weights, experts, _PLAIN_BYTES * count.embedding, said)


def _of_gguf(count: ParameterCount, file_type: str) -> WeightBytes:
    if not _ggml.known(file_type):
        raise QuantlabError(f"the bytes of GGUF type {file_type} cannot be planned: quantize to learn them, or plan another type")
    found = list(_gguf.parts(count, file_type))
    packed = [p for p in found if not _gguf.is_plain(p.kind)]
    inside = sum(p.bytes for p in packed)
    outside = sum(p.bytes for p in found if _gguf.is_plain(p.kind)) + 4 * (count.vectors + count.buffers)
    experts = sum(p.bytes for p in found if p.matrix.role == "expert")
    embedding = sum(p.bytes for p in found if p.matrix.role == "embedding")
    notes = [_TOWER] if count.by_role.get("vision") else []
    odd = sum(p.weights for p in packed if p.matrix.in_features % 256 and not p.kind.startswith("Q8")) if "K" in file_type else 0
    if odd:
        notes.append(f"{odd / max(1, count.total):.0%} of the weights are in rows that are no multiple of 256 and take a larger type.")
    return _made(count, inside, outside, sum(p.weights for p in packed), experts, embedding, tuple(notes), text_only=True)


def _made(
    count: ParameterCount,
    inside: int,
    outside: int,
    weights: int,
    experts: int,
    embedding: int,
    notes: tuple[str, ...],
    text_only: bool = False,
) -> WeightBytes:
    parameters = count.total - (count.by_role.get("vision", 0) if text_only else 0)
    return WeightBytes(
        bytes_total=inside + outside,
        bytes_quantized=inside,
        bytes_unquantized=outside,
        bits_per_weight=8 * (inside + outside) / parameters,
        quantized_bits_per_weight=8 * inside / weights if weights else None,
        how="formula",
        expert_bytes=experts,
        embedding_bytes=0 if count.tied else embedding,
        notes=notes,
    )


def _by_analogy(count: ParameterCount, method: str, bits: int, settings: Any) -> WeightBytes | None:
    """Where only a number of parameters is known: the bits per weight of Llama 3.1 70B under the same settings."""
    from quantlab.architecture.counts import count as count_config
    from quantlab.catalogue.config import known_config

    known = known_config(_MODEL)
    assert known is not None
    other = weight_bytes(count_config(known.config), method, bits, settings)
    if other is None:
        return None
    total = round(count.total * other.bits_per_weight / 8)
    inside = 0 if other.quantized_bits_per_weight is None else round(total * other.bytes_quantized / other.bytes_total)
    return WeightBytes(
        bytes_total=total,
        bytes_quantized=inside,
        bytes_unquantized=total - inside,
        bits_per_weight=other.bits_per_weight,
        quantized_bits_per_weight=other.quantized_bits_per_weight,
        how="analogy",
        notes=(f"Only the number of parameters is known: the {other.bits_per_weight:.4g} bits per weight of {_MODEL} were taken.",),
    )
