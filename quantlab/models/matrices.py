"""Tell along which dimension the matrices of a transformers model take their inputs.

A torch Linear is stored (outputs, inputs), and so are most families' experts, in one tensor (experts,
outputs, inputs). GPT-2's Conv1D and the experts of gpt-oss and Llama 4 are stored the other way round. Groups
of inputs share a scale, so rounding along the wrong dimension is another method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def inputs_first(model: Any) -> frozenset[str]:
    """Names of the parameters that are stored (..., inputs, outputs)."""
    return frozenset(name for name, module in _with_inputs_first(model) for name in _parameters(name, module))


def _with_inputs_first(model: Any) -> Iterator[tuple[str, Any]]:
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, Conv1D) or experts_inputs_first(module):
            yield name, module


def experts_inputs_first(module: Any) -> bool:
    """Whether a module holds experts so, by the two shapes together, which fit one order alone: what goes up
    from the hidden size to twice the inner one comes down from the inner one."""
    up: Any = getattr(module, "gate_up_proj", None)
    down: Any = getattr(module, "down_proj", None)
    if getattr(up, "ndim", 0) != 3 or getattr(down, "ndim", 0) != 3:
        return False
    return bool(up.shape[-1] == 2 * down.shape[-2] and up.shape[-2] == down.shape[-1])


def _parameters(module_name: str, module: Any) -> Iterator[str]:
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim > 1 and not name.endswith("bias"):
            yield f"{module_name}.{name}"
