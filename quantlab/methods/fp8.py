"""Store weights as 8-bit floating point (e4m3) with a scale per row, data-free, through GPTQModel."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.methods import _gptqmodel
from quantlab.methods._contract import Arithmetic, InMemory, Job, Method, Serving
from quantlab.methods._read_only import ACTIVATIONS_IN_16_BITS, UNPACKED

_SCALE_BYTES = 4
"""A float32 scale per row (gptqmodel 7.7, nn_modules/qlinear/fp8.py)."""


class Fp8(Method):
    """FP8 through GPTQModel."""

    name = "fp8"
    summary = "8-bit floating-point weights, data-free, through GPTQModel"
    bits = (8,)
    extra = "fp8"
    requires = ("gptqmodel", "optimum", "torch", "transformers")
    loaded_by = ("gptqmodel",)
    marks = ("fp8",)
    lays_out_releases = False  # theirs have a scale per block or per matrix, GPTQModel's one per row

    def quantize(self, job: Job) -> InMemory:
        """Round every weight to e4m3."""
        from gptqmodel.quantization.config import FP8Config

        return _gptqmodel.quantize(job, FP8Config())

    def why_left(self, count: ParameterCount, matrix: Matrix) -> str | None:
        """Why a matrix stays in 16 bits: what GPTQModel leaves alone."""
        return super().why_left(count, matrix) or _gptqmodel.why_left(count, matrix)

    def matrix_bytes(self, matrix: Matrix, bits: int, settings: Any) -> int:
        """Bytes of the weight and the scales."""
        return matrix.out_features * matrix.in_features + _SCALE_BYTES * matrix.out_features

    def multiplies_in(self, bits: int) -> Arithmetic:
        """8-bit floating point."""
        return "fp8"

    def width_in(self, config: Mapping[str, Any]) -> object:
        """8 where the config does not say."""
        return config.get("bits") or 8

    def reading_notes(self, config: Mapping[str, Any], device: str) -> tuple[str, ...]:
        """What a reader of the numbers must know: transformers unpacks FP8 on a CPU."""
        if "weight_scale_method" in config or device.startswith("cuda"):
            return ()
        return (UNPACKED, ACTIVATIONS_IN_16_BITS.format(to="FP8"))

    def serving(self, bits: int, source: str) -> Serving:
        """vLLM's own FP8."""
        online = shlex.join(["vllm", "serve", source, "--quantization", "fp8"])
        note = (
            f"the checkpoint has one scale per row, which was not tried with vLLM; `{online}` quantizes while"
            " loading instead"
        )
        return Serving(("--quantization", "fp8"), (note,))


METHOD = Fp8()
