"""Compute exact logits from final hidden states with the model's own output head.

Hidden states take hidden size / vocabulary size of the space of logits. The head gives the exact logits when
it is applied to whole windows; a single row differs by about 4e-5 in float32, since another matrix shape sums
in another order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.errors import QuantlabError
from quantlab.frozen import Frozen

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class HeadSpec(Frozen):
    """What a model does after its output matrix."""

    softcap: float | None = None
    """logits = softcap * tanh(logits / softcap) (Gemma 2)."""
    multiplier: float = 1.0
    """logits are multiplied by it (Cohere's logit_scale, Falcon-H1's lm_head_multiplier)."""
    divisor: float = 1.0
    """logits are divided by it (Granite's logits_scaling): x / 6 is not x * (1 / 6) in floating point."""


_MULTIPLIERS = ("logit_scale", "lm_head_multiplier")
_SCALES_UP = ("hyperclovax",)
"""Model types whose logits_scaling multiplies."""


def spec_of(config: Any) -> HeadSpec:
    """Read from a model's config."""
    text = config.get_text_config()
    scale = next((float(value) for name in _MULTIPLIERS if (value := getattr(text, name, None))), 1.0)
    scaling = float(getattr(text, "logits_scaling", None) or 1.0)
    if text.model_type in _SCALES_UP:
        scale, scaling = scaling, 1.0
    return HeadSpec(softcap=getattr(text, "final_logit_softcapping", None), multiplier=scale, divisor=scaling)


class Head:
    """The output matrix (vocabulary, hidden) with what follows it."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, spec: HeadSpec) -> None:
        self.weight, self.bias, self.spec = weight, bias, spec

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Hidden states (length, hidden) of one whole window to logits (length, vocabulary), float32."""
        import torch

        with torch.inference_mode():
            states = torch.from_numpy(hidden)[None].to(self.weight.device, self.weight.dtype)
            out = torch.nn.functional.linear(states, self.weight, self.bias)
            if self.spec.multiplier != 1.0:
                out = out * self.spec.multiplier
            if self.spec.divisor != 1.0:
                out = out / self.spec.divisor
            if self.spec.softcap is not None:
                out = self.spec.softcap * torch.tanh(out / self.spec.softcap)
            logits: NDArray[np.float32] = out[0].float().cpu().numpy()
        return logits

    @property
    def roundings(self) -> int:
        """How often a logit is rounded to the head's dtype on its way."""
        return (
            1
            + (self.spec.multiplier != 1.0)
            + (self.spec.divisor != 1.0)
            + 3 * (self.spec.softcap is not None)
        )

    def save(self, path: Path) -> None:
        """Write the matrix as safetensors, in the dtype that the reference ran in."""
        from safetensors.torch import save_file

        tensors = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


def load_head(path: Path, spec: HeadSpec, device: str = "cpu") -> Head:
    """Read a head that `Head.save` wrote onto a device. Raises QuantlabError where it is not there."""
    from safetensors.torch import load_file

    if not path.exists():
        raise QuantlabError(f"there is no {path}: run `quantlab reference` first")
    tensors = load_file(path, device=device)
    return Head(tensors["weight"], tensors.get("bias"), spec)
