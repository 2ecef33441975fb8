"""Classify the layers of models that mix attention with state-space or linear layers, and size their
recurrent state.

Shapes from transformers 5.23.0: a Mamba-2 layer keeps heads · head_dim · state_size and kernel columns of
(heads · head_dim + 2 · groups · state_size) channels; Mamba-1 keeps channels · state_size; Kimi's delta
attention keeps heads · head_dim² and columns of queries, keys and values; MiniMax's lightning attention heads
· head_dim²."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from quantlab.architecture.fields import Fields

MAMBA2 = ("granitemoehybrid", "bamba", "nemotron_h", "falcon_h1")
FAMILIES = (*MAMBA2, "jamba", "kimi_linear", "minimax")
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
    if fields.family == "jamba":
        channels = fields.needed("mamba_expand") * fields.needed("hidden_size")
        return State(
            1, channels * fields.needed("mamba_d_state"), channels, channels, fields.needed("mamba_d_conv")
        )
    if fields.family == "minimax":
        heads = fields.needed("num_attention_heads")
        dim = fields.integer("head_dim") or fields.needed("hidden_size") // heads
        return State(heads, heads * dim * dim, heads * dim, 0, 0)
    return _kimi(fields) if fields.family == "kimi_linear" else None


def _mamba2(fields: Fields) -> State:
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


def _kimi(fields: Fields) -> State:
    about = fields.get("linear_attn_config")
    inner = Fields({"model_type": "kimi_linear", **about}) if isinstance(about, Mapping) else None
    heads = inner.needed("num_heads") if inner else fields.needed("linear_num_heads")
    dim = inner.needed("head_dim") if inner else fields.needed("linear_head_dim")
    kernel = inner.needed("short_conv_kernel_size") if inner else fields.needed("linear_conv_kernel_dim")
    return State(heads, heads * dim * dim, heads * dim, 3 * heads * dim, kernel)
