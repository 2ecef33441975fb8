"""Compute the bytes of a checkpoint before it is made: what each method stores, and what it leaves in 16
bits."""

from __future__ import annotations

from typing import Any

from quantlab import methods
from quantlab.architecture.counts import count as count_config
from quantlab.architecture.parameters import ParameterCount
from quantlab.architecture.weight_bytes import WeightBytes
from quantlab.catalogue.config import known_config

_MODEL = "llama-3.1-70b"


def weight_bytes(count: ParameterCount, method: str, bits: int, settings: Any = None) -> WeightBytes | None:
    """Bytes of the model quantized by a method; `settings` is the method's own Settings, or None.

    None where the method does not offer the width, or where its bytes are known only once they are made.
    Raises QuantlabError for an unknown method."""
    maker = methods.load(method)
    if bits not in maker.bits:
        return None
    if not count.tensors:
        return _by_analogy(count, method, bits, settings)
    return maker.weight_bytes(count, bits, maker.Settings() if settings is None else settings)


def why_unknown(method: str, bits: int) -> str:
    """Why a method has no planned bytes at a width."""
    maker = methods.load(method)
    if bits in maker.bits:
        return f"the bytes of {method} are known only once a checkpoint is made"
    return f"{method} does not offer {bits} bits (it offers {', '.join(map(str, maker.bits))})"


def _by_analogy(count: ParameterCount, method: str, bits: int, settings: Any) -> WeightBytes | None:
    """Where only a number of parameters is known: the bits per weight of Llama 3.1 70B under the same
    settings."""
    known = known_config(_MODEL)
    assert known is not None
    other = weight_bytes(count_config(known.config), method, bits, settings)
    if other is None:
        return None
    total = round(count.total * other.bits_per_weight / 8)
    inside = (
        0
        if other.quantized_bits_per_weight is None
        else round(total * other.bytes_quantized / other.bytes_total)
    )
    return WeightBytes(
        bytes_total=total,
        bytes_quantized=inside,
        bytes_unquantized=total - inside,
        bits_per_weight=other.bits_per_weight,
        quantized_bits_per_weight=other.quantized_bits_per_weight,
        how="analogy",
        notes=(
            (
                f"Only the number of parameters is known: the {other.bits_per_weight:.4g} bits per weight of"
                f" {_MODEL} were taken."
            ),
        ),
    )
