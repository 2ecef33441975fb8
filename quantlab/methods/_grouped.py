"""Compute bytes of a matrix with scales and zero points per group of columns, in int32 words along the rows.

Source: gptqmodel 7.7, nn_modules/qlinear/__init__.py, _register_gptq_buffers;
auto_round_extension/torch/qlinear_torch.py."""

from __future__ import annotations

from math import ceil

from quantlab.architecture.parameters import Matrix

WORD_BITS = 32


def group_of(columns: int, group_size: int) -> int:
    """Columns of a group; a size of 0 or less means the whole row."""
    return columns if group_size <= 0 else group_size


def grouped_bytes(matrix: Matrix, bits: int, group_size: int) -> int:
    """Bytes of qweight, qzeros and 16-bit scales."""
    columns, rows = matrix.in_features, matrix.out_features
    groups = ceil(columns / group_of(columns, group_size))
    codes = 4 * ceil(columns * bits / WORD_BITS) * rows
    zeros = 4 * groups * ceil(rows * bits / WORD_BITS)
    return codes + zeros + 2 * groups * rows
