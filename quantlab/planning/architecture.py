"""What a config.json says of a model's shape, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from quantlab.records import Frozen

LayerKind = Literal["full", "sliding", "chunked", "mla", "mla_indexed", "delta_net", "compressed_sparse", "heavily_compressed", "none"]


class Layer(Frozen):
    """One decoder layer as its cache sees it."""

    kind: LayerKind
    kv_heads: int = 0
    key_dim: int = 0
    """Per head; for MLA the rank of the latent."""
    value_dim: int = 0
    """Per head; for MLA the part with rotary positions; 0 where keys and values are one tensor."""
    window: int | None = None
    """Tokens kept by a sliding, chunked or compressed layer."""
    ratio: int | None = None
    """Tokens per compressed entry."""
    index_dim: int = 0
    """Of the indexer's key, one head."""
    state_elements: int = 0
    """Recurrent state."""
    state_bytes_per_element: int = 4
    conv_channels: int = 0
    conv_kernel: int = 0


class Stored(Frozen):
    """The quantized format that a release is stored in."""

    method: str
    bits: int
    label: str
    """As its quantization_config names it."""


class Architecture(Frozen):
    """A model's shape."""

    model_type: str
    hidden_size: int
    layers: tuple[Layer, ...]
    attention_heads: int
    kv_heads: int
    vocab_size: int
    max_context: int | None
    """Tokens that the model was made for; None where the config does not say."""
    experts: int | None = None
    experts_per_token: int | None = None
    tied: bool = False
    stored: Stored | None = None
    certain: bool = True
    doubts: tuple[str, ...] = ()


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """The shape that a config.json's content describes; nested text configs are read, unknown types as ordinary attention with a doubt.

    Raises QuantlabError for missing or contradictory fields.
    """
    raise NotImplementedError
