"""Compute the key-value cache's size by formula, layer by layer, to show beside the measured one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from quantlab.architecture.cache_types import bytes_per_value
from quantlab.architecture.kvcache import cache_bytes, cache_bytes_read
from quantlab.architecture.shape import Architecture, read_architecture
from quantlab.errors import QuantlabError


class CacheFormula(NamedTuple):
    """A model's cache in one type of values."""

    architecture: Architecture
    cache_dtype: str

    def keys_and_values(self, tokens: int, batch: int) -> int:
        """Bytes of the keys and values of `batch` sequences; recurrent and convolution state is not in it."""
        held = cache_bytes(self.architecture, tokens, self.cache_dtype)
        return (held.total - held.state) * batch

    def read_per_step(self, before: int, decoded: int, batch: int, gpus: int = 1) -> int:
        """Bytes that a step in the middle of a decode of `decoded` tokens reads, state included, over all
        GPUs that split each layer. `before` tokens are in the cache when the decode begins."""
        middle = {before + decoded // 2, before + -(-decoded // 2)}
        per_gpu = [cache_bytes_read(self.architecture, tokens, gpus, self.cache_dtype) for tokens in middle]
        return round(sum(per_gpu) / len(per_gpu)) * gpus * batch


def cache_formula(config: Mapping[str, Any], cache_dtype: str) -> CacheFormula | None:
    """The formula for the model that a config.json describes.

    None where that is not certain to be the whole truth: a config whose layers are not all known, or a cache
    type that keeps some tokens in another one."""
    if bytes_per_value(cache_dtype) is None:
        return None
    try:
        architecture = read_architecture(config)
    except QuantlabError:  # of an architecture of its own, whose config has other fields
        return None
    return CacheFormula(architecture, cache_dtype) if architecture.certain else None
