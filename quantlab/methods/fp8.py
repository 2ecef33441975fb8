"""fp8: weights as 8-bit floating point (e4m3) with a scale per block, data-free, through GPTQModel."""

from __future__ import annotations

from quantlab.frozen import Frozen
from quantlab.methods import InMemory, Job

SUMMARY = "8-bit floating-point weights, data-free, through GPTQModel"
BITS = (8,)
FORMAT = "safetensors"
FROM = "source"
EXTRA = "fp8"
REQUIRES = ("gptqmodel", "optimum", "torch", "transformers")
ENV: dict[str, str] = {}


class Settings(Frozen):
    """Nothing can be set: e4m3, one scale per row."""


def quantize(job: Job) -> InMemory:
    """See the module."""
    from gptqmodel.quantization.config import FP8Config

    from quantlab.methods import _gptqmodel

    return _gptqmodel.quantize(job, FP8Config())
