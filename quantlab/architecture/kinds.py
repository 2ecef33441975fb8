"""Classify each layer of a model by what its cache holds: tokens, a window, a latent, a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from quantlab.architecture import hybrids, schedules
from quantlab.architecture.fields import Fields

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
    "deepseek_sparse_attention": "mla_indexed",
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


def layer_kinds(fields: Fields, count: int) -> list[LayerKind]:
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
