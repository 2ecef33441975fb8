"""Bytes of a release that is stored quantized, by its own quantization_config: what `as stored` stands for in a plan.

Bits of a quantized weight with its scales: the formulas of each format (fp8 in blocks of 128 × 128 with a float32 scale,
mxfp4 32 weights to an 8-bit scale, nvfp4 16 to an 8-bit scale, integers a 16-bit scale per group). Which matrices are
quantized: linears and experts, less those that the config keeps, by the names of modules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from quantlab.planning.architecture import Stored
from quantlab.planning.counts import Matrix, ParameterCount
from quantlab.planning.weights import WeightBytes

_PLAIN_BITS = 16
_FP8_BITS = 8 + 32 / (128 * 128)
_BY_METHOD = {"fp8": _FP8_BITS, "mxfp4": 4 + 8 / 32, "nvfp4": 4 + 8 / 16}


def stored_bytes(counted: ParameterCount, stored: Stored) -> WeightBytes | None:
    """Bytes of the release's tensors; None where the model's matrices are not known."""
    if not counted.tensors:
        return None
    bits = {id(matrix): _bits(matrix, stored) for matrix in counted.tensors}
    packed = [matrix for matrix in counted.tensors if bits[id(matrix)] < _PLAIN_BITS]
    inside = sum(math.ceil(matrix.parameters * bits[id(matrix)] / 8) for matrix in packed)
    weights = sum(matrix.parameters for matrix in packed)
    outside = (counted.total - weights) * _PLAIN_BITS // 8 + counted.buffer_bytes
    experts = sum(math.ceil(matrix.parameters * bits[id(matrix)] / 8) for matrix in counted.tensors if matrix.role == "expert")
    return WeightBytes(
        bytes_total=inside + outside,
        bytes_quantized=inside,
        bytes_unquantized=outside,
        bits_per_weight=8 * (inside + outside) / counted.total,
        quantized_bits_per_weight=8 * inside / weights if weights else None,
        how="formula",
        expert_bytes=experts,
        embedding_bytes=0 if counted.tied else counted.embedding * _PLAIN_BITS // 8,
        notes=("The release's own format, by its quantization_config; not compared with its files.",),
    )


def _bits(matrix: Matrix, stored: Stored) -> float:
    if matrix.role not in ("linear", "expert") or _is_kept(matrix.name, stored.kept):
        return _PLAIN_BITS
    if matrix.role == "expert" and stored.expert_bits:
        return stored.expert_bits
    known = _BY_METHOD.get(stored.method)
    return known or stored.bits + (16 / stored.group_size if stored.group_size else 0)


def _is_kept(name: str, kept: Iterable[str]) -> bool:
    """Whether a list of modules names the matrix; `*` stands for the numbers in both."""
    concrete = name.replace("*", "0")
    for pattern in kept:
        if pattern.startswith("re:"):
            try:
                if re.match(pattern[3:], concrete):
                    return True
            except re.error:
                continue
        elif re.sub(r"(?<=\.)\d+(?=\.|$)", "*", pattern).strip(".") in name:
            return True
    return False
