"""Classify each layer of a model, and describe what its cache holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab.architecture import hybrids
from quantlab.architecture.fields import Fields
from quantlab.architecture.hybrids import attention_of
from quantlab.architecture.kinds import LayerKind, layer_kinds
from quantlab.frozen import Frozen


class Layer(Frozen):
    """One decoder layer as its cache sees it."""

    kind: LayerKind
    kv_heads: int = 0
    """Heads that are cached; 1 for a latent."""
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
    index_topk: int | None = None
    """Entries that one query reads; None for all."""
    state_heads: int = 0
    """Heads of a recurrent state."""
    state_elements: int = 0
    """Of the recurrent state, all heads."""
    state_in_model_dtype: bool = False
    """The recurrent state is kept in the model's own dtype, not in float32."""
    value_channels: int = 0
    """Of all value heads of a recurrent layer."""
    conv_channels: int = 0
    conv_kernel: int = 0


def layers_of(fields: Fields, count: int) -> tuple[Layer, ...]:
    """The layers of a model, the first one first. Raises QuantlabError for lists that contradict the number
    of layers."""
    blocks = fields.sequence("block_configs", count)
    if blocks:
        return tuple(_block(fields, block) for block in blocks)
    shared = fields.integer("num_kv_shared_layers", 0) or 0
    layers = [_layer(fields, kind) for kind in layer_kinds(fields, count)]
    layers = [
        layer if has_keys else layer.model_copy(update={"index_dim": 0})
        for layer, has_keys in zip(layers, _indexers(fields, count), strict=True)
    ]
    return tuple(layers[: count - shared] + [Layer(kind="none")] * min(shared, count))


def _block(fields: Fields, block: Any) -> Layer:
    """A layer whose widths config.json gives by itself (Llama-Nemotron, found by architecture search)."""
    attention = attention_of(block)
    if attention is None:
        return Layer(kind="none")
    dim = head_dim(fields)
    window = attention.get("window_length")
    return Layer(
        kind="sliding" if window else "full",
        kv_heads=fields.needed("num_attention_heads") // attention["n_heads_in_group"],
        key_dim=dim,
        value_dim=dim,
        window=window,
    )


def _indexers(fields: Fields, count: int) -> list[bool]:
    """Whether each layer keeps keys of an indexer of its own, or takes the choice of an earlier one
    (GLM-5.2)."""
    types = fields.sequence("indexer_types", count)
    if types:
        return [name != "shared" for name in types]
    every = fields.integer("index_topk_freq") or 1
    offset = fields.integer("index_skip_topk_offset", 0)
    first = 2 if offset is None else offset
    return [max(i - first + 1, 0) % every == 0 for i in range(count)]


def _layer(fields: Fields, kind: LayerKind) -> Layer:
    if kind == "none":
        return Layer(kind=kind)
    if kind == "delta_net":
        return _delta_net(fields)
    if kind in ("mamba", "hybrid"):
        return _recurrent(fields, kind)
    if kind == "conv":
        kernel = fields.integer("conv_L_cache") or fields.integer("conv_kernel_size") or 3
        return Layer(kind=kind, conv_channels=fields.needed("hidden_size"), conv_kernel=kernel)
    if kind in ("mla", "mla_indexed"):
        return _mla(fields, kind)
    if fields.family == "deepseek_v4":
        return _compressed(fields, kind)
    other = fields.get("attention_other_setting")  # Step 3.5: widths of its sliding layers
    if kind == "sliding" and isinstance(other, Mapping):
        inner = Fields({**fields.raw, "attention_other_setting": None, **other})
        heads, dim = kv_heads(inner), head_dim(inner)
    else:
        heads, dim = kv_heads(fields, kind), head_dim(fields, kind)
    value = fields.integer("v_head_dim") if fields.family == "mimo_v2_flash" else None
    window = None
    if kind == "sliding":
        window = fields.window() or fields.needed("sliding_window")
    elif kind == "chunked":
        window = fields.needed("attention_chunk_size")
    return Layer(kind=kind, kv_heads=heads, key_dim=dim, value_dim=value or dim, window=window)


def _delta_net(fields: Fields) -> Layer:
    if fields.family == "olmo_hybrid":  # its config class computes what is left out
        usual = fields.needed("num_attention_heads")
        heads, keys = (
            fields.integer("linear_num_value_heads") or usual,
            fields.integer("linear_num_key_heads") or usual,
        )
        key_dim = fields.integer("linear_key_head_dim") or fields.needed("hidden_size") * 3 // (4 * keys)
        value_dim = fields.integer("linear_value_head_dim") or 2 * key_dim
    else:
        heads, keys = fields.needed("linear_num_value_heads"), fields.needed("linear_num_key_heads")
        key_dim, value_dim = fields.needed("linear_key_head_dim"), fields.needed("linear_value_head_dim")
    return Layer(
        kind="delta_net",
        state_heads=heads,
        state_elements=heads * key_dim * value_dim,
        value_channels=heads * value_dim,
        conv_channels=2 * keys * key_dim + heads * value_dim,
        conv_kernel=fields.integer("linear_conv_kernel_dim") or 4,
    )


def _recurrent(fields: Fields, kind: LayerKind) -> Layer:
    kept = hybrids.state(fields)
    if kept is None:
        return Layer(kind="none")
    attention = kind == "hybrid"
    return Layer(
        kind=kind,
        kv_heads=kv_heads(fields) if attention else 0,
        key_dim=head_dim(fields) if attention else 0,
        value_dim=head_dim(fields) if attention else 0,
        state_heads=kept.heads,
        state_elements=kept.elements,
        state_in_model_dtype=fields.family == "minimax",
        value_channels=kept.value_channels,
        conv_channels=kept.conv_channels,
        conv_kernel=kept.conv_kernel,
    )


def _mla(fields: Fields, kind: LayerKind) -> Layer:
    indexed = kind == "mla_indexed"
    return Layer(
        kind=kind,
        kv_heads=1,
        key_dim=fields.needed("kv_lora_rank"),
        value_dim=fields.needed("qk_rope_head_dim"),
        index_dim=fields.needed("index_head_dim") if indexed else 0,
        index_topk=fields.integer("index_topk") if indexed else None,
    )


def _compressed(fields: Fields, kind: LayerKind) -> Layer:
    sparse = kind == "compressed_sparse"
    return Layer(
        kind=kind,
        kv_heads=1,
        key_dim=head_dim(fields, kind),
        window=fields.needed("sliding_window"),
        ratio=_ratio(fields, kind),
        index_dim=fields.needed("index_head_dim") if sparse else 0,
        index_topk=fields.integer("index_topk") if sparse else None,
    )


def _ratio(fields: Fields, kind: LayerKind) -> int | None:
    """Tokens per compressed entry; None for a layer that does not compress."""
    short, usual = {"compressed_sparse": ("csa", 4), "heavily_compressed": ("hca", 128)}.get(kind, ("", 0))
    rates = fields.get("compress_rates")
    given = rates.get(f"{kind}_attention") if isinstance(rates, Mapping) else None
    return given or fields.integer(f"compress_rate_{short}") or usual or None


def head_dim(fields: Fields, kind: LayerKind = "full") -> int:
    """Dimension of one head's key. Raises QuantlabError where the hidden size does not divide into heads."""
    from quantlab.errors import QuantlabError

    own = (
        fields.integer("global_head_dim") or 512
        if fields.family == "gemma4_text" and kind == "full"
        else None
    )
    hidden, heads = fields.needed("hidden_size"), fields.needed("num_attention_heads")
    if fields.family in ("zamba", "zamba2"):  # attention over the hidden state and the embedding together
        return fields.integer("attention_head_dim") or 2 * hidden // heads
    given = own or fields.integer("head_dim")
    if given:
        return given
    if hidden % heads:
        raise QuantlabError(
            f"config.json contradicts itself: hidden_size {hidden} cannot be divided by num_attention_heads"
            f" {heads}, and it has no head_dim"
        )
    return hidden // heads


def kv_heads(fields: Fields, kind: LayerKind = "full") -> int:
    """Heads of keys and values; as many as attention heads where config.json and the architecture name
    none."""
    if fields.family == "gemma4_text" and kind == "full" and fields.get("attention_k_eq_v"):
        own = fields.integer("num_global_key_value_heads")
        if own:
            return own
    if (
        fields.get("multi_query")
        and fields.family in ("falcon", "gpt_bigcode")
        and not fields.get("new_decoder_architecture")
    ):
        return 1
    return fields.integer("num_key_value_heads") or fields.needed("num_attention_heads")
