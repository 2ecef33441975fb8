"""Compute bytes of key-value cache and recurrent state, layer by layer, and the bytes that one decode step
reads.

Policies: what an engine really holds differs from what attention needs.

| policy | what it charges |
|---|---|
| exact | what attention needs: min(tokens, window) of a sliding layer, kernel - 1 columns of a convolution |
| transformers | window - 1 tokens (the newest one is not kept), `kernel` columns of a convolution |
| llama_cpp | contexts in steps of 256 tokens; of a sliding layer the window and one batch of 512; recurrent layers in float32 |
| every_layer_full | every token in every layer, as engines do that do not honour windows |

The formulas are those of the layer kinds' papers; `transformers` is compared with that library's tensors in
the tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple, get_args

from quantlab.architecture.cache_types import BYTES_PER_VALUE, cache_type_name
from quantlab.architecture.layers import Layer
from quantlab.architecture.shape import Architecture
from quantlab.errors import QuantlabError, unknown
from quantlab.frozen import Frozen

Policy = Literal["exact", "transformers", "llama_cpp", "every_layer_full"]
POLICIES: tuple[str, ...] = get_args(Policy)
_FLOAT32 = 4
_LLAMA_STEP, _LLAMA_BATCH = 256, 512  # llama.cpp pads n_ctx to 256; n_ubatch is 512 unless told otherwise


class CacheSize(Frozen):
    """Cache of one sequence, in bytes."""

    total: int
    by_kind: dict[str, int]
    """Per kind of layer, summed over its layers."""
    state: int
    """Part that stays the same however long the context is (recurrent and convolution state)."""


class _Elements(NamedTuple):
    """What one layer holds, in elements."""

    cached: int
    """Keys and values, in the cache's dtype."""
    half: int
    """Convolution columns, open windows and MiniMax's state, in the model's own dtype: never in fewer than 16
    bits."""
    state: int
    """Recurrent state, in float32."""


def cache_bytes(
    architecture: Architecture, tokens: int, dtype: str = "bfloat16", policy: str = "exact"
) -> CacheSize:
    """Cache of one sequence of `tokens` tokens. Raises QuantlabError for an unknown dtype or policy, or fewer
    than 1 token."""
    return cache_bytes_per_gpu(architecture, tokens, 1, dtype, policy)


def cache_bytes_per_gpu(
    architecture: Architecture,
    tokens: int,
    tensor_parallel: int,
    dtype: str = "bfloat16",
    policy: str = "exact",
) -> CacheSize:
    """What one of `tensor_parallel` GPUs holds of one sequence's cache.

    Heads are split over the GPUs; where there are fewer heads than GPUs each holds one, and latents that all
    heads share lie on every GPU. Raises QuantlabError as `cache_bytes` does."""
    return _sum(architecture, tokens, tensor_parallel, dtype, policy, _held)


def cache_bytes_read(
    architecture: Architecture, tokens: int, tensor_parallel: int = 1, dtype: str = "bfloat16"
) -> int:
    """Bytes of one sequence's cache that one GPU reads for one more token: an indexer's choice bounds what is
    read."""
    return _sum(architecture, tokens, tensor_parallel, dtype, "exact", _read).total


def _sum(
    architecture: Architecture,
    tokens: int,
    tensor_parallel: int,
    dtype: str,
    policy: str,
    elements: Callable[[Layer, int, int, str], _Elements],
) -> CacheSize:
    if tokens < 1 or tensor_parallel < 1:
        raise QuantlabError(
            f"a cache needs 1 token and 1 GPU or more; {tokens} and {tensor_parallel} were given"
        )
    if policy not in POLICIES:
        raise unknown("cache policy", policy, POLICIES)
    size = BYTES_PER_VALUE[cache_type_name(dtype)]
    by_kind: dict[str, int] = {}
    state = 0
    for layer, how_many in architecture.distinct_layers.items():
        cached, half, recurrent = elements(layer, tokens, tensor_parallel, policy)
        fixed = (
            math.ceil(half * (_FLOAT32 if policy == "llama_cpp" else max(size, Fraction(2))))
            + recurrent * _FLOAT32
        )
        by_kind[layer.kind] = by_kind.get(layer.kind, 0) + how_many * (math.ceil(cached * size) + fixed)
        state += how_many * fixed if layer.state_elements or layer.conv_channels else 0
    return CacheSize(
        total=sum(by_kind.values()), by_kind={k: v for k, v in by_kind.items() if v}, state=state
    )


def _held(layer: Layer, tokens: int, tensor_parallel: int, policy: str) -> _Elements:
    heads = math.ceil(layer.kv_heads / tensor_parallel)
    per_token = heads * (layer.key_dim + layer.value_dim)
    if layer.kind in ("compressed_sparse", "heavily_compressed"):
        return _compressed(layer, tokens, policy)
    if policy == "transformers" and not layer.value_dim:
        # DeepSeek V4's layers that do not compress: the one tensor is stored as keys and again as values
        per_token *= 2
    kept = _kept(layer, tokens, policy)
    columns = layer.conv_kernel if policy == "transformers" else max(layer.conv_kernel - 1, 0)
    state = _state(layer, tensor_parallel)
    return _Elements(
        cached=per_token * kept + layer.index_dim * tokens,
        half=math.ceil(layer.conv_channels / tensor_parallel) * columns
        + (state if layer.state_in_model_dtype else 0),
        state=0 if layer.state_in_model_dtype else state,
    )


def _kept(layer: Layer, tokens: int, policy: str) -> int:
    """Tokens that a layer keeps."""
    if policy == "llama_cpp":
        return _padded(tokens if layer.window is None else min(_padded(tokens), layer.window + _LLAMA_BATCH))
    if layer.window is None or policy == "every_layer_full":
        return tokens
    return min(tokens, layer.window - 1 if policy == "transformers" else layer.window)


def _padded(tokens: int) -> int:
    return -(-tokens // _LLAMA_STEP) * _LLAMA_STEP


def _state(layer: Layer, tensor_parallel: int) -> int:
    if not layer.state_heads:
        return 0
    return layer.state_elements // layer.state_heads * math.ceil(layer.state_heads / tensor_parallel)


def _compressed(layer: Layer, tokens: int, policy: str) -> _Elements:
    """DeepSeek V4: a window of keys, one entry per `ratio` tokens, and what the window that is not full yet
    holds.

    Keys and gates of the open window are held, at twice the width in a sparse layer, and the last full
    window's first half (its overlap with the next). The indexer of a sparse layer holds the same at its own
    width."""
    ratio = layer.ratio or 1
    entries, left = divmod(tokens, ratio)
    width = layer.key_dim + layer.index_dim
    series = 2 if layer.kind == "compressed_sparse" else 1
    overlap = 2 * ratio * width if series == 2 and entries else 0
    cached = layer.key_dim * _kept(layer, tokens, policy) + width * entries
    return _Elements(cached, half=2 * series * left * width + overlap, state=0)


def _read(layer: Layer, tokens: int, tensor_parallel: int, policy: str) -> _Elements:
    held = _held(layer, tokens, tensor_parallel, policy)
    if layer.index_topk is None:
        return held
    ratio = layer.ratio or 1
    entries = tokens // ratio
    chosen = min(entries, layer.index_topk)
    window = _kept(layer, tokens, policy) * layer.key_dim if layer.ratio else 0
    return held._replace(
        cached=window + chosen * (layer.key_dim + layer.value_dim) + entries * layer.index_dim
    )
