"""Classify each layer of a model, and describe what its cache holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from quantlab.architecture import hybrids, schedules
from quantlab.architecture.fields import Fields
from quantlab.frozen import Frozen

LayerKind = Literal[
    "full",
    "sliding",
    "chunked",
    "mla",
    "mla_indexed",
    "delta_net",
    "compressed_sparse",
    "heavily_compressed",
    "mamba",
    "hybrid",
    "conv",
    "none",
]
_BY_TYPE: Mapping[str, LayerKind] = {
    "full_attention": "full",
    "attention": "full",
    "global": "full",
    "sliding_attention": "sliding",
    "local": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "delta_net",
    "indexed_attention": "mla_indexed",
    "compressed_sparse_attention": "compressed_sparse",
    "heavily_compressed_attention": "heavily_compressed",
    "mamba": "mamba",
    "hybrid": "hybrid",
    "conv": "conv",
    "moe": "none",
    "mlp": "none",
    "dummy": "none",
}
_BY_RATIO: Mapping[int, LayerKind] = {0: "sliding", 4: "compressed_sparse", 128: "heavily_compressed"}


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
    shared = fields.integer("num_kv_shared_layers", 0) or 0
    kinds = _kinds(fields, count)
    found = [_layer(fields, kind) for kind in kinds]
    return tuple(found[: count - shared] + [Layer(kind="none")] * min(shared, count))


def _kinds(fields: Fields, count: int) -> list[LayerKind]:
    named = (
        fields.sequence("layer_types", count)
        or fields.sequence("layers_block_type", count)
        or hybrids.layer_types(fields, count)
    )
    if named:
        return [_named(fields, name) for name in named]
    ratios = fields.sequence("compress_ratios", count, longer=True)
    if ratios:
        return [_by_ratio(fields, ratio) for ratio in ratios]
    if fields.family == "deepseek_v4":
        fields.doubt("config.json has no compress_ratios: transformers' own schedule is taken", certain=True)
        return ["heavily_compressed" if i < 2 or i % 2 == 0 else "compressed_sparse" for i in range(count)]
    if fields.family == "llama4_text":
        return _llama4(fields, count)
    scheduled = (
        None if isinstance(fields.get("sliding_window_pattern"), str) else schedules.scheduled(fields, count)
    )
    if scheduled:
        return [_named(fields, name, listed=False) for name in scheduled]
    if fields.get("linear_num_value_heads"):
        interval = fields.integer("full_attention_interval") or 4
        return ["full" if (i + 1) % interval == 0 else "delta_net" for i in range(count)]
    if fields.get("kv_lora_rank"):
        return ["mla_indexed" if fields.get("index_head_dim") else "mla"] * count
    return _windows(fields, count)


def _named(fields: Fields, name: Any, listed: bool = True) -> LayerKind:
    kind = _BY_TYPE.get(str(name))
    if kind is None:
        fields.doubt(f"layers of the type {name!r} are not known: their cache is taken as full attention's")
        return "full"
    if kind == "full" and fields.get("kv_lora_rank"):
        return "mla"
    if kind == "mla_indexed" and not fields.get("kv_lora_rank"):
        fields.doubt(
            "config.json does not give the latent of its indexed_attention layers: their cache is taken as"
            " full attention's"
        )
        return "full"
    if kind == "delta_net" and fields.family in hybrids.FAMILIES:
        return "mamba"
    if kind in ("mamba", "hybrid") and fields.family not in hybrids.FAMILIES:
        left = _without_state(
            fields, f"the state of the {name} layers of {fields.model_type} is not known here", listed
        )
        return left if kind == "mamba" else "full"
    if kind == "delta_net" and not fields.get("linear_num_value_heads") and fields.family != "olmo_hybrid":
        return _without_state(
            fields, "config.json does not give the state of its linear_attention layers", listed
        )
    return kind


def _without_state(fields: Fields, why: str, listed: bool) -> LayerKind:
    """Listed layers are known to keep no tokens; where config.json does not even list them, the most is taken
    that they can keep."""
    fields.doubt(
        f"{why}: it is left out"
        if listed
        else f"{why}, nor which layers they are: all are taken as attention"
    )
    if listed:
        return "none"
    return "mla" if fields.get("kv_lora_rank") else "full"


def _by_ratio(fields: Fields, ratio: Any) -> LayerKind:
    kind = _BY_RATIO.get(ratio) if isinstance(ratio, int) else None
    if kind is None:
        fields.doubt(f"a compress ratio of {ratio!r} is not known: its layers are taken as full attention")
    return kind or "full"


def _windows(fields: Fields, count: int) -> list[LayerKind]:
    window, every = fields.window(), fields.get("sliding_window_pattern")
    if not window or fields.get("use_sliding_window") is False:
        return ["full"] * count
    if isinstance(every, str) and every:
        return ["sliding" if every[i % len(every)].upper() == "L" else "full" for i in range(count)]
    nth = fields.integer("sliding_window_pattern", 0)
    if nth:
        return ["sliding" if (i + 1) % nth else "full" for i in range(count)]
    first = fields.integer("max_window_layers", 0) if fields.get("use_sliding_window") else 0
    return ["sliding" if i >= (first or 0) else "full" for i in range(count)]


def _llama4(fields: Fields, count: int) -> list[LayerKind]:
    """Layers without rotary positions attend to everything, the others to chunks (Llama 4)."""
    interval = fields.integer("no_rope_layer_interval") or 4
    rotary = fields.sequence("no_rope_layers", count) or [int((i + 1) % interval != 0) for i in range(count)]
    return ["chunked" if flag and fields.get("attention_chunk_size") else "full" for flag in rotary]


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
    given = own or fields.integer("head_dim")
    if given:
        return given
    hidden, heads = fields.needed("hidden_size"), fields.needed("num_attention_heads")
    if hidden % heads:
        raise QuantlabError(
            f"config.json contradicts itself: hidden_size {hidden} is no multiple of num_attention_heads"
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
