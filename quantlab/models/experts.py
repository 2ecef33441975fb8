"""Take apart the matrices of experts that transformers holds in one tensor of three dimensions.

Its own marks say how they lie (integrations/moe.py of transformers 5.23): rows and columns exchanged, gate
and up beside each other or in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.models.matrices import experts_inputs_first

if TYPE_CHECKING:
    import torch

GATE_UP = "gate_up_proj"
_BIAS = "_bias"


class Layout(NamedTuple):
    """How the experts of a layer lie in one tensor."""

    parts: tuple[str, ...]
    """Names of each expert's matrices in it, such as gate_proj and up_proj."""
    exchanged: bool
    """Whether it is (experts, inputs, outputs) and not (experts, outputs, inputs)."""
    in_turn: bool
    """Whether the outputs of the parts take turns and do not follow each other."""
    bias: bool
    """Whether it is the bias (experts, outputs)."""

    def apart(self, tensor: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The tensors (experts, outputs, inputs) of each part, or (experts, outputs) of a bias."""
        rows = tensor if self.bias or not self.exchanged else tensor.transpose(1, 2)
        size, many = rows.shape[1] // len(self.parts), len(self.parts)
        return {
            part: rows[:, n::many] if self.in_turn else rows[:, n * size : (n + 1) * size]
            for n, part in enumerate(self.parts)
        }

    def together(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """What `apart` took apart, in the order of its parts."""
        import torch

        rows = torch.stack(parts, dim=2).flatten(1, 2) if self.in_turn else torch.cat(parts, dim=1)
        return rows if self.bias or not self.exchanged else rows.transpose(1, 2).contiguous()


def layout_of(module: Any, key: str) -> Layout:
    """How a parameter of a module of experts lies."""
    bias = key.endswith(_BIAS)
    name = key.removesuffix(_BIAS)
    parts = ("gate_proj", "up_proj") if name == GATE_UP else (name,)
    exchanged = experts_inputs_first(module)
    in_turn = len(parts) > 1 and not getattr(module, "is_concatenated", True)
    return Layout(parts, exchanged, in_turn, bias)


def holds_experts(module: Any) -> bool:
    """Whether a module holds the matrices of several experts in one parameter."""
    return any(
        parameter.ndim == 3 and key.endswith("_proj")
        for key, parameter in module.named_parameters(recurse=False)
    )
