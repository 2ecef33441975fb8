"""Compute bytes of a GGUF file's tensors: llama.cpp's type for each matrix, in blocks; vectors and routers in
float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.formats import ggml

_CATEGORIES = (
    {
        "v_proj": "attn_v",
        "in_proj_qkv": "attn_v",
        "qkv_proj": "attn_v",
        "Wqkv": "attn_v",
        "query_key_value": "attn_v",
    }
    | {
        "c_attn": "attn_v",
        "k_proj": "attn_k",
        "q_proj": "attn_q",
        "o_proj": "attn_output",
        "dense": "attn_output",
    }
    | {
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
        "w2": "ffn_down",
        "w1": "ffn_gate",
        "w3": "ffn_up",
    }
    | {"gate_up_proj": "ffn_up", "fc1": "ffn_up", "fc2": "ffn_down", "c_fc": "ffn_up"}
)
"""The module's name in transformers, and llama.cpp's category of what the converter makes of it."""

_PLAIN = ("F32", "F16", "BF16")


class Part(NamedTuple):
    """Matrices of one shape and type."""

    matrix: Matrix
    kind: str
    bytes: int
    weights: int


def parts(count: ParameterCount, file_type: str) -> Iterator[Part]:
    """Every matrix with its type."""
    wide = count.model_type.removesuffix("_text") in ("llama", "qwen2") and count.layers == 80
    mix = ggml.Mix(file_type, count.layers, count.experts, count.query_per_kv, wide, count.tied)
    values = sorted(layer for m in count.tensors if _category(m) == "attn_v" for layer in m.layers)
    for matrix in count.tensors:
        if matrix.role in ("embedding", "head"):
            yield _part(matrix, _outer(mix, matrix), matrix.how_many)
            continue
        each = matrix.how_many // max(1, len(matrix.layers))
        for layer in matrix.layers or (0,):
            yield _part(matrix, _inner(mix, matrix, layer, values), each)


def _outer(mix: ggml.Mix, matrix: Matrix) -> str:
    if mix.base in _PLAIN:
        return mix.base
    head = matrix.role == "head" or mix.tied
    return ggml.fitted(
        ggml.head_type(mix, matrix.in_features) if head else ggml.embedding_type(mix), matrix.in_features
    )


def _inner(mix: ggml.Mix, matrix: Matrix, layer: int, values: list[int]) -> str:
    if matrix.role == "router":
        return "F32"  # the converter writes routers so, and the quantizer leaves them
    if mix.base in _PLAIN:
        return mix.base
    category = _category(matrix)
    place = values.index(layer) if category == "attn_v" else layer
    return ggml.fitted(
        ggml.block_type(
            mix._replace(layers=len(values) if category == "attn_v" else mix.layers), category, place
        ),
        matrix.in_features,
    )


def _category(matrix: Matrix) -> str:
    if matrix.role not in ("linear", "expert") or ".compressor." in matrix.name or ".indexer." in matrix.name:
        return "other"
    return _CATEGORIES.get(matrix.name.rpartition(".")[2], "other")


def _part(matrix: Matrix, kind: str, many: int) -> Part:
    rows = matrix.out_features * many
    return Part(matrix, kind, rows * ggml.row_bytes(kind, matrix.in_features), rows * matrix.in_features)


def is_plain(kind: str) -> bool:
    """Whether a tensor of this type is not quantized."""
    return kind in _PLAIN
