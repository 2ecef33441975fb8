"""What each library stores for one weight matrix, in bytes, as its own code allocates it.

- GPTQ (gptqmodel 7.7, nn_modules/qlinear/__init__.py, _register_gptq_buffers): codes in int32 words along the rows, a
  float16 scale and packed zero points per group of columns, and g_idx, an int32 per column.
- AWQ (the same file, _register_awq_buffers): codes and zero points packed along the outputs, 16-bit scales; no g_idx.
- FP8 (nn_modules/qlinear/fp8.py): a byte per weight and a float32 scale per row.
- auto-round (auto_round_extension/torch/qlinear_torch.py): as GPTQ without g_idx.
- bitsandbytes 4 bits (functional.py, QuantState.as_dict): half a byte per weight, a scale per 64 weights, the 16 values of
  the type, and a description of about 170 bytes; with double quantization the scales take a byte each, and a float32 per
  256 of them with a table of 256. 8 bits: a byte per weight, a float32 per row, and a byte that names the format.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

from quantlab.architecture.counts import Matrix

_WORD_BITS = 32
_QUANT_STATE_BYTES = 170
_BLOCK_4BIT = 64
_BLOCK_SCALES = 256

Layout = Callable[[Matrix, int, Any], int]
"""Bytes of one matrix at a width under a method's settings."""


def gptq(matrix: Matrix, bits: int, settings: Any) -> int:
    """qweight, qzeros, scales and g_idx."""
    return _grouped(matrix, bits, settings.group_size) + 4 * matrix.in_features


def autoround(matrix: Matrix, bits: int, settings: Any) -> int:
    """qweight, qzeros and scales."""
    return _grouped(matrix, bits, settings.group_size)


def awq(matrix: Matrix, bits: int, settings: Any) -> int:
    """qweight, qzeros and scales, packed along the outputs."""
    into, out = matrix.in_features, matrix.out_features
    groups, words = ceil(into / _group(into, settings.group_size)), ceil(out * bits / _WORD_BITS)
    return 4 * into * words + 4 * groups * words + 2 * groups * out


def fp8(matrix: Matrix, bits: int, settings: Any) -> int:
    """Weight and scale per row."""
    return matrix.out_features * matrix.in_features + 4 * matrix.out_features


def bitsandbytes(matrix: Matrix, bits: int, settings: Any) -> int:
    """Codes, scales, tables and the description of both."""
    weights = matrix.out_features * matrix.in_features
    if bits == 8:
        return weights + 4 * matrix.out_features + 1
    scales = ceil(weights / _BLOCK_4BIT)
    nested = scales + 4 * ceil(scales / _BLOCK_SCALES) + 4 * _BLOCK_SCALES
    return ceil(weights / 2) + (nested if settings.double_quantization else 4 * scales) + 4 * 16 + _QUANT_STATE_BYTES


LAYOUTS: dict[str, Layout] = {"gptq": gptq, "awq": awq, "fp8": fp8, "autoround": autoround, "bitsandbytes": bitsandbytes}


def _grouped(matrix: Matrix, bits: int, group_size: int) -> int:
    into, out = matrix.in_features, matrix.out_features
    groups = ceil(into / _group(into, group_size))
    return 4 * ceil(into * bits / _WORD_BITS) * out + 4 * groups * ceil(out * bits / _WORD_BITS) + 2 * groups * out


def _group(columns: int, group_size: int) -> int:
    return columns if group_size <= 0 else group_size
