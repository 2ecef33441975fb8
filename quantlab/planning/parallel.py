"""Check whether GPUs can share each layer: heads, and the groups and blocks whose weights share a scale.

Engines split the rows of what reads the hidden state (gate, up, queries) and the columns of what writes it
(down, output). A GPU's part must hold whole groups of columns and whole blocks, or its scales are another
GPU's: vLLM refuses to load such a checkpoint."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.architecture.parameters import Matrix
from quantlab.architecture.shape import Architecture

_SPLIT_COLUMNS = ("o_proj", "down_proj", "out_proj", "w2", "wo", "dense_4h_to_h", "c_proj", "fc2", "dense")
_SPLIT_ROWS = ("gate_proj", "up_proj", "gate_up_proj", "w1", "w3", "q_proj")
_SPLIT_HEADS = ("k_proj", "v_proj")
"""Rows that are split by key-value heads; GPUs beyond their number hold copies."""


class Grain(NamedTuple):
    """What a GPU's part of a quantized matrix must be whole multiples of."""

    matrix: Matrix
    rows: int
    columns: int


def why_not_parallel(architecture: Architecture, size: int, grains: tuple[Grain, ...] = ()) -> str | None:
    """Why so many GPUs cannot share each layer evenly; None where they can."""
    if size == 1:
        return None
    heads, kv = architecture.attention_heads, architecture.kv_heads
    if heads % size:
        return f"{heads} attention heads cannot be split over {size} GPUs"
    if kv % size and size % kv:
        return f"{kv} key-value heads cannot be split over {size} GPUs"
    if not heads and (odd := _odd_state(architecture, size)):
        return f"{odd} heads of a recurrent state cannot be split over {size} GPUs"
    return next((why for grain in grains if (why := _why_not_split(grain, kv, size))), None)


def _odd_state(architecture: Architecture, size: int) -> int | None:
    heads = (layer.state_heads for layer in architecture.distinct_layers)
    return next((n for n in heads if n > 1 and n % size), None)


def _why_not_split(grain: Grain, kv_heads: int, size: int) -> str | None:
    matrix, last = grain.matrix, grain.matrix.name.rpartition(".")[2]
    whole, multiple, parts = 0, 1, size
    if last in _SPLIT_COLUMNS:
        whole, multiple = matrix.in_features, grain.columns
    elif last in _SPLIT_ROWS:
        whole, multiple = matrix.out_features, grain.rows
    elif last in _SPLIT_HEADS:
        whole, multiple, parts = matrix.out_features, grain.rows, min(size, kv_heads or size)
    if multiple <= 1 or whole % (parts * multiple) == 0:
        return None
    name = ".".join(part for part in matrix.name.split(".")[-3:] if part != "*")
    share = f"{whole // parts:,}" if whole % parts == 0 else f"{whole / parts:,.1f}"
    return (
        f"{name} cannot be split over {size} GPUs: {whole:,} / {parts} = {share} cannot be divided"
        f" by the {multiple} that share a scale"
    )
