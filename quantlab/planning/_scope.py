"""Which matrices each method quantizes, as the libraries' own code decides it; the rest stays in 16 bits."""

from __future__ import annotations

import re

from quantlab.architecture.counts import Matrix, ParameterCount

_GPTQMODEL_LEAVES: tuple[tuple[str, str], ...] = (
    (r"qwen3_5|qwen3_next", r"linear_attn\.in_proj_(a|b|ba)$"),
    (r"deepseek_v32|glm_moe_dsa", r"indexer\.weights_proj$"),
    (r"deepseek_v4", r"\.compressor\.|o_a_proj$"),
)
"""By architecture: modules with `!` in the module_tree of gptqmodel 7.7's definitions, or that it does not name."""


def quantized(count: ParameterCount, method: str, matrix: Matrix) -> bool:
    """Whether the method packs the matrix."""
    if matrix.role not in ("linear", "expert"):
        return method == "bitsandbytes" and matrix.role == "router" and matrix.name.endswith("shared_expert_gate")
    if method == "bitsandbytes":  # transformers replaces torch Linears alone
        return not matrix.fused
    if method == "autoround":  # layer_config_resolver.py: both sides a multiple of 32
        return matrix.out_features % 32 == 0 and matrix.in_features % 32 == 0
    leaves = next((names for types, names in _GPTQMODEL_LEAVES if re.match(types, count.model_type)), None)
    return not (leaves and re.search(leaves, matrix.name))


def remarks(count: ParameterCount, method: str, group_size: int | None) -> tuple[str, ...]:
    """What a reader of the bytes must know of this method on this architecture."""
    found = []
    if method == "bitsandbytes" and any(m.fused for m in count.tensors):
        found.append("Experts stay in 16 bits: transformers holds them in one tensor per layer, which bitsandbytes does not quantize.")
    if method == "autoround" and any(m.fused for m in count.tensors):
        found.append("It is taken for granted that auto-round takes the experts apart; not tried on this architecture.")
    odd = sorted({m.in_features for m in count.tensors if quantized(count, method, m) and group_size and m.in_features % group_size})
    if odd and group_size and group_size > 0:
        found.append(f"Rows of {', '.join(map(str, odd))} are no multiple of the group of {group_size}: set group_size to a divisor.")
    if count.by_role.get("vision"):
        found.append("The vision tower stays in 16 bits.")
    return tuple(found)
