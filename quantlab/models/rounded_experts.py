"""Round what enters the matrices of a mixture's experts, as kernels in 8 bits do.

transformers multiplies fused experts inside one module, where no layer's input can be seen; the module's
forward is replaced by the sum that its class documents (integrations/moe.py of transformers 5.23)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from quantlab.models.experts import GATE_UP, holds_experts
from quantlab.models.matrices import experts_inputs_first

if TYPE_CHECKING:
    import torch

Rounding = Callable[["torch.Tensor"], "torch.Tensor"]
"""Of activations (tokens, channels)."""


def round_experts(model: Any, rounding: Rounding) -> list[str]:
    """Round what enters both products of every expert from now on; the names of the modules in which it
    cannot be done."""
    left = []
    for name, module in model.named_modules():
        if not holds_experts(module):
            continue
        if hasattr(module, "is_transposed") and not module.has_post_expert_norm:
            module.forward = partial(_forward, module, rounding)
        else:
            left.append(name)
    return left


def _forward(
    module: Any,
    rounding: Rounding,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """The weighted sum of each token's experts, (tokens, channels)."""
    import torch

    first = GATE_UP if module.has_gate else "up_proj"
    out, entering = torch.zeros_like(hidden_states), rounding(hidden_states)
    for number in top_k_index.unique().tolist():
        if number >= getattr(module, "num_experts", number + 1):
            continue  # stands for a place without an expert
        token, place = torch.where(top_k_index == number)
        up = _product(module, first, number, entering[token])
        inner = module._apply_gate(up) if module.has_gate else module.act_fn(up)
        down = _product(module, "down_proj", number, rounding(inner))
        weighted = down * top_k_weights[token, place, None]
        out.index_add_(0, token, weighted.to(out.dtype))
    return out


def _product(module: Any, key: str, number: int, entering: torch.Tensor) -> torch.Tensor:
    weight = getattr(module, key)[number]
    made: torch.Tensor = entering @ (weight if experts_inputs_first(module) else weight.T)
    return made + getattr(module, f"{key}_bias")[number] if module.has_bias else made
