"""Classify the layers of models that mix attention with state-space or linear layers, and size their
recurrent state.

Shapes from transformers 5.23.0: a Mamba-2 layer keeps heads · head_dim · state_size and kernel columns of
(heads · head_dim + 2 · groups · state_size) channels; Mamba-1 keeps channels · state_size; Kimi's delta
attention keeps heads · head_dim² and columns of queries, keys and values; MiniMax's lightning attention heads
· head_dim²."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from quantlab.architecture.fields import Fields

MAMBA2 = ("granitemoehybrid", "bamba", "nemotron_h", "falcon_h1", "mamba2", "zamba2")
MAMBA1 = ("jamba", "mamba", "falcon_mamba", "zamba")
ATTENTION_FREE = ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm")
FAMILIES = (*MAMBA2, *MAMBA1, "kimi_linear", "minimax", "rwkv", "recurrent_gemma", "xlstm")
_PATTERN: Mapping[str, str] = {"M": "mamba", "*": "full_attention", "-": "mlp", "E": "moe"}


class State(NamedTuple):
    """What a recurrent layer keeps for one sequence."""

    heads: int
    elements: int
    """Of all heads."""
    value_channels: int
    conv_channels: int
    conv_kernel: int


def layer_types(fields: Fields, count: int) -> list[str] | None:
    """Layers by the fields that only these families have; None where there are none of them."""
    pattern = fields.get("hybrid_override_pattern")
    if isinstance(pattern, str) and len(pattern) >= count:
        return [_PATTERN.get(letter, letter) for letter in pattern[:count]]
    if fields.family == "falcon_h1":
        return ["hybrid"] * count
    if fields.family in ATTENTION_FREE:
        return ["mamba"] * count
    if fields.family == "bamba":
        full = fields.get("attn_layer_indices")
        return ["full_attention" if isinstance(full, list) and i in full else "mamba" for i in range(count)]
    if fields.family == "jamba":
        period, offset = fields.integer("attn_layer_period") or 8, fields.integer("attn_layer_offset", 0)
        offset = 4 if offset is None else offset
        return ["full_attention" if i % period == offset else "mamba" for i in range(count)]
    kinds = fields.sequence("attn_type_list", count)  # MiniMax-Text-01 and M1
    if kinds:
        return ["full_attention" if kind == 1 else "linear_attention" for kind in kinds]
    full = fields.get("full_attn_idxs")  # LFM2
    if isinstance(full, list):
        return ["full_attention" if i in full else "conv" for i in range(count)]
    about = fields.get("linear_attn_config")
    if isinstance(about, Mapping) and isinstance(about.get("full_attn_layers"), list):
        return [
            "full_attention" if i + 1 in about["full_attn_layers"] else "mamba" for i in range(count)
        ]  # counted from 1
    return None


def state(fields: Fields) -> State | None:
    """What a recurrent layer of the model keeps; None for a family whose state is not known here."""
    if fields.family in MAMBA2:
        return _mamba2(fields)
    if fields.family in MAMBA1:
        return _mamba1(fields)
    if fields.family == "rwkv":
        return _rwkv(fields)
    if fields.family == "recurrent_gemma":
        width = fields.integer("lru_width") or fields.needed("hidden_size")
        return State(
            fields.needed("num_attention_heads"), width, width, width, fields.integer("conv1d_width") or 4
        )
    if fields.family == "xlstm":
        return _xlstm(fields)
    if fields.family == "minimax":
        heads = fields.needed("num_attention_heads")
        dim = fields.integer("head_dim") or fields.needed("hidden_size") // heads
        return State(heads, heads * dim * dim, heads * dim, 0, 0)
    return _kimi(fields) if fields.family == "kimi_linear" else None


def _mamba1(fields: Fields) -> State:
    """One state per channel; the releases of Mamba itself give the channels as intermediate_size."""
    hidden, size = fields.needed("hidden_size"), _first(fields, "mamba_d_state", "state_size") or 16
    own = None if fields.family in ("jamba", "zamba") else fields.integer("intermediate_size")
    channels = own or (_first(fields, "mamba_expand", "expand") or 2) * hidden
    kernel = _first(fields, "mamba_d_conv", "conv_kernel") or 4
    return State(1, channels * size, channels, channels, kernel)


def _rwkv(fields: Fields) -> State:
    """RWKV 4: numerator, denominator and maximum of its attention in float32, and the last token's input of
    both halves of a layer."""
    hidden = fields.needed("hidden_size")
    attention = fields.integer("attention_hidden_size") or hidden
    return State(1, 3 * attention, attention, 2 * hidden, 2)


def _xlstm(fields: Fields) -> State:
    """A matrix memory, its normalizer and a gate's maximum per head."""
    hidden, heads = fields.needed("hidden_size"), fields.integer("num_heads") or 8
    keys, values = (
        int(hidden * float(fields.get(name) or usual)) // heads
        for name, usual in (("qk_dim_factor", 0.5), ("v_dim_factor", 1.0))
    )
    return State(heads, heads * (keys * values + keys + 1), heads * values, 0, 0)


def _first(fields: Fields, *names: str) -> int | None:
    """The first of several names of a size that config.json has, else the architecture's default."""
    written = next((name for name in names if fields.written(name)), names[0])
    return fields.integer(written)


def _mamba2(fields: Fields) -> State:
    if fields.family in ("mamba2", "zamba2"):
        return _plain_mamba2(fields)
    if fields.family == "nemotron_h":
        heads, dim, size = (
            fields.needed("mamba_num_heads"),
            fields.needed("mamba_head_dim"),
            fields.needed("ssm_state_size"),
        )
        groups, kernel = fields.needed("n_groups"), fields.needed("conv_kernel")
    else:
        heads, size = fields.needed("mamba_n_heads"), fields.needed("mamba_d_state")
        inner = fields.integer("mamba_d_ssm") or fields.needed("mamba_expand") * fields.needed("hidden_size")
        given = fields.get("mamba_d_head")
        dim = inner // heads if given in (None, "auto") else fields.needed("mamba_d_head")
        groups, kernel = fields.needed("mamba_n_groups"), fields.needed("mamba_d_conv")
    return State(heads, heads * dim * size, heads * dim, heads * dim + 2 * groups * size, kernel)


def _plain_mamba2(fields: Fields) -> State:
    """Mamba 2 itself and Zamba 2, whose releases use other names than transformers' classes."""
    expand = _first(fields, "mamba_expand", "expansion_factor", "expand") or 2
    inner = expand * fields.needed("hidden_size")
    dim = _first(fields, "mamba_headdim", "head_dim") if fields.family == "mamba2" else None
    dim = dim or fields.integer("mamba_headdim")
    heads = inner // dim if dim else _first(fields, "n_mamba_heads", "num_heads") or 8
    size = _first(fields, "mamba_d_state", "state_size") or 64
    groups = _first(fields, "mamba_ngroups", "n_groups") or 1
    kernel = _first(fields, "mamba_d_conv", "conv_dimension", "conv_kernel") or 4
    return State(heads, inner * size, inner, inner + 2 * groups * size, kernel)


def attention_of(block: Any) -> Mapping[str, Any] | None:
    """What an entry of block_configs says of attention; None where the layer has none."""
    attention = block.get("attention") if isinstance(block, Mapping) else None
    if not isinstance(attention, Mapping) or attention.get("no_op") or attention.get("replace_with_linear"):
        return None
    group = attention.get("n_heads_in_group")
    return attention if isinstance(group, int) and group > 0 else None


def _kimi(fields: Fields) -> State:
    about = fields.get("linear_attn_config")
    inner = Fields({"model_type": "kimi_linear", **about}) if isinstance(about, Mapping) else None
    heads = inner.needed("num_heads") if inner else fields.needed("linear_num_heads")
    dim = inner.needed("head_dim") if inner else fields.needed("linear_head_dim")
    kernel = inner.needed("short_conv_kernel_size") if inner else fields.needed("linear_conv_kernel_dim")
    return State(heads, heads * dim * dim, heads * dim, 3 * heads * dim, kernel)
