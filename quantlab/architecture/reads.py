"""The ceiling that memory bandwidth sets to a decode, and the key-value cache's size by formula. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from quantlab.architecture.cache_types import BITS_PER_VALUE
from quantlab.records import Roofline

_ODD = (
    "kv_lora_rank",
    "num_kv_shared_layers",
    "layers_block_type",
    "block_types",
    "hybrid_override_pattern",
    "attn_layer_period",
    "attn_layer_indices",
    "full_attn_idxs",
    "full_attention_interval",
    "attn_type_list",
    "lru_width",
    "state_size",
)
_RECURRENT = ("mamba_", "ssm_", "linear_num_", "linear_key_", "linear_attn", "linear_conv")
"""Keys of hybrids' configurations, which need not name their layers' types."""


class WeightReads(NamedTuple):
    """Stored bytes of the weights that a decode reads, in two kinds."""

    always_bytes: int
    """Read in every step: all but the input embedding (a row per token is nothing) and the experts; a head that is tied
    to the embedding is read whole."""
    expert_bytes: int = 0
    """All routed experts together."""
    experts: int = 0
    experts_per_token: int = 0

    def per_step(self, batch: int) -> int | None:
        """Bytes of one step with `batch` sequences, whose tokens choose their experts independently.

        None where there are experts, but not how many of how many a token uses.
        """
        if not self.expert_bytes:
            return self.always_bytes
        if not self.experts or not self.experts_per_token:
            return None
        touched = 1 - (1 - self.experts_per_token / self.experts) ** batch
        return self.always_bytes + round(self.expert_bytes * touched)


def ceiling(batch: int, weights: int, cache: int, bytes_per_second: float, reached: float | None) -> Roofline:
    """tokens/s <= batch × bandwidth / (weights + cache read per step), and the share of it that was reached."""
    limit = batch * bytes_per_second / (weights + cache)
    share = None if reached is None else reached / limit
    return Roofline(weight_bytes_per_step=weights, cache_bytes_per_step=cache, tokens_per_second=limit, share=share)


def kv_cache_bytes(config: Mapping[str, Any], tokens: int, batch: int, cache_dtype: str) -> int | None:
    """2 × layers × key-value heads × head width × tokens × batch × bytes of a value.

    `config` is the model's config.json. None where that is not the whole truth: linear, recurrent or sliding-window layers,
    latent attention, layers that share a cache, or a cache type that keeps some tokens in another one.
    """
    text = config.get("text_config") or config
    layers, heads, hidden = (text.get(key) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    kinds = set(text.get("layer_types") or ["full_attention"])
    windowed = text.get("sliding_window") and text.get("use_sliding_window", True)
    odd = kinds != {"full_attention"} or windowed or any(text.get(key) for key in _ODD) or any(k.startswith(_RECURRENT) for k in text)
    bits = BITS_PER_VALUE.get(cache_dtype)
    if odd or bits is None or not (layers and heads and hidden):
        return None
    width = text.get("head_dim") or hidden // heads
    return int(2 * layers * (text.get("num_key_value_heads") or heads) * width * tokens * batch * bits / 8)
