"""The output head of a model: from the final hidden states to logits, exactly as the model itself computes them.

Stored hidden states are hidden-size / vocabulary-size of stored logits, and the head gives the exact logits back when
it is applied to whole windows (a single row differs by about 4e-5 in float32: another matrix shape, another order of
summation).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.errors import QuantlabError
from quantlab.records import Frozen

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class HeadSpec(Frozen):
    """What a model does after its output matrix."""

    softcap: float | None = None
    """logits = softcap * tanh(logits / softcap) (Gemma 2)."""
    multiplier: float = 1.0
    """logits are multiplied by it (Cohere's logit_scale, Granite's 1 / logits_scaling)."""


def spec_of(config: Any) -> HeadSpec:
    """Read from a model's config."""
    text = config.get_text_config()
    scale = getattr(text, "logit_scale", None) or 1.0
    scaling = getattr(text, "logits_scaling", None) or 1.0
    return HeadSpec(softcap=getattr(text, "final_logit_softcapping", None), multiplier=float(scale) / float(scaling))


class Head:
    """The output matrix (vocabulary, hidden) with what follows it."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, spec: HeadSpec) -> None:
        self.weight, self.bias, self.spec = weight, bias, spec

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Hidden states (length, hidden) of one whole window to logits (length, vocabulary), float32."""
        import torch

        with torch.inference_mode():
            states = torch.from_numpy(hidden)[None].to(self.weight.dtype)
            out = torch.nn.functional.linear(states, self.weight, self.bias)
            if self.spec.multiplier != 1.0:
                out = out * self.spec.multiplier
            if self.spec.softcap is not None:
                out = self.spec.softcap * torch.tanh(out / self.spec.softcap)
            logits: NDArray[np.float32] = out[0].float().numpy()
        return logits

    def save(self, path: Path) -> None:
        """Write the matrix as safetensors, in the dtype that the reference ran in."""
        from safetensors.torch import save_file

        save_file({"weight": self.weight.contiguous()} | ({} if self.bias is None else {"bias": self.bias.contiguous()}), path)


def load_head(path: Path, spec: HeadSpec) -> Head:
    """Read a head that `Head.save` wrote. Raises QuantlabError where it is not there."""
    from safetensors.torch import load_file

    if not path.exists():
        raise QuantlabError(f"there is no {path}: run `quantlab reference` first")
    tensors = load_file(path)
    return Head(tensors["weight"], tensors.get("bias"), spec)
