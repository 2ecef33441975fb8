"""Round to 8-bit floating point (e4m3): weights with a scale per row, activations with one per token.

This is FP8_DYNAMIC of compressed-tensors: the scale is the largest absolute value over 448, in the weight's
own dtype as its tools store it. Weights are rounded by the package's own compressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

PRESET = "FP8_DYNAMIC"
FORMAT = "float-quantized"
LARGEST = 448.0


class Codes(NamedTuple):
    """A rounded matrix."""

    weight: torch.Tensor
    """e4m3 numbers (outputs, inputs)."""
    scale: torch.Tensor
    """(outputs, 1), in the dtype of the unquantized weight."""

    def values(self) -> torch.Tensor:
        """What they stand for, in float32."""
        return self.weight.float() * self.scale.float()


def scheme() -> Any:
    """compressed-tensors' description of the layers."""
    from compressed_tensors.quantization import preset_name_to_scheme

    made = preset_name_to_scheme(PRESET, ["Linear"])
    made.format = FORMAT
    return made


def round_rows(weight: torch.Tensor) -> Codes:
    """Round a matrix (outputs, inputs)."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization.utils import calculate_qparams

    described, exact = scheme(), weight.float()
    scale, _ = calculate_qparams(exact.amin(1, keepdim=True), exact.amax(1, keepdim=True), described.weights)
    stored = scale.to(weight.dtype)
    compressor = BaseCompressor.get_value_from_registry(FORMAT)
    # in float32: a quotient that is rounded to bfloat16 first may fall on the other side
    made = compressor.compress({"weight": exact, "weight_scale": stored.float()}, described)
    return Codes(made["weight"], stored)


def round_tokens(inputs: torch.Tensor) -> torch.Tensor:
    """Round activations (..., channels), one scale per token."""
    import torch

    exact = inputs.float()
    scale = (exact.abs().amax(-1, keepdim=True) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    codes = (exact / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return (codes.float() * scale).to(inputs.dtype)
