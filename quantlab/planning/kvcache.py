"""Bytes of the key-value cache and state."""

from __future__ import annotations

from typing import Literal

from quantlab.planning.architecture import Architecture
from quantlab.records import Frozen

Policy = Literal["exact", "transformers", "every_layer_full"]


class CacheBytes(Frozen):
    """Cache of one sequence, in bytes."""

    total: int
    by_kind: dict[str, int]
    """Per kind of layer, summed over its layers."""
    state: int
    """Part that does not grow with the context (convolution and recurrent state, open windows)."""


def cache_bytes(architecture: Architecture, tokens: int, dtype: str = "bfloat16", policy: Policy = "exact") -> CacheBytes:
    """Cache of one sequence of `tokens` tokens. Raises QuantlabError for an unknown dtype or policy, or tokens below 1."""
    raise NotImplementedError


def cache_bytes_per_gpu(
    architecture: Architecture, tokens: int, tensor_parallel: int, dtype: str = "bfloat16", policy: Policy = "exact"
) -> CacheBytes:
    """The part of one GPU: heads are split, single heads and latent caches replicated."""
    raise NotImplementedError
