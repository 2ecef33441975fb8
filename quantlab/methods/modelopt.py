"""Read NVIDIA ModelOpt's checkpoints: FP8 with a scale per matrix, and NVFP4 with a scale per 16 weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab.methods._contract import Grid, Serving
from quantlab.methods._read_only import CACHE_IN_16_BITS, UNPACKED, ReadOnly

_WIDTHS = {"FP8": 8, "NVFP4": 4}
_NVFP4_GROUP = 16
_MIXED = "MIXED_PRECISION"


class ModelOpt(ReadOnly):
    """ModelOpt's unified checkpoints, unpacked by quantlab."""

    name = "modelopt"
    summary = "other people's checkpoints of NVIDIA ModelOpt: FP8, NVFP4; read only"
    widths_read = (8, 4)
    requires = ("torch", "transformers")
    marks = ("modelopt",)

    def width_in(self, config: Mapping[str, Any]) -> object:
        """The width of its algorithm, the smallest where layers have several."""
        return min((_WIDTHS[name] for name in _algorithms(config) if name in _WIDTHS), default=None)

    def grid_in(self, config: Mapping[str, Any]) -> Grid:
        """Of NVFP4, whose values are not equally spaced."""
        return Grid(_NVFP4_GROUP, symmetric=True)

    def why_not_read(self, config: Mapping[str, Any]) -> str | None:
        """Why a checkpoint cannot be measured: an algorithm that is not unpacked here."""
        unread = [name for name in _algorithms(config) if name not in _WIDTHS]
        if not unread and _algorithms(config):
            return None
        named = unread[0] if unread else "no quant_algo"
        known = " and ".join(_WIDTHS)
        return f"it says {named}, which quantlab does not unpack: of ModelOpt it reads {known}"

    def reading_notes(self, config: Mapping[str, Any], device: str) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        rounded = (
            "Activations of linear layers were rounded with the checkpoint's scales; those of fused experts"
            " stayed in 16 bits.",
        )
        cache = config.get("kv_cache_quant_algo") or config.get("kv_cache_scheme")
        return (UNPACKED, *rounded, *((CACHE_IN_16_BITS,) if cache else ()))

    def serving(self, bits: int, source: str) -> Serving:
        """vLLM finds the format by itself."""
        flag = "modelopt" if bits == 8 else "modelopt_fp4"
        return Serving(("--quantization", flag), ("it needs a GPU with FP8, or FP4, instructions",))


def _algorithms(config: Mapping[str, Any]) -> list[str]:
    """The algorithms of all layers, in capitals."""
    said = str(config.get("quant_algo") or "").upper()
    if said != _MIXED:
        return [said] if said else []
    layers = config.get("quantized_layers")
    of_layers = layers.values() if isinstance(layers, Mapping) else ()
    return sorted({str(layer.get("quant_algo")).upper() for layer in of_layers if isinstance(layer, Mapping)})


METHOD = ModelOpt()
