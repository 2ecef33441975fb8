"""awq: scales the channels that activations make important before rounding (Lin et al. 2024).

8 and 2 bits are not offered: GPTQModel 7.7 packs them into a checkpoint that reloads as garbage (perplexity 482,105
and 177,446 on SmolLM2, all logits finite).
"""

from __future__ import annotations

from pydantic import Field

from quantlab.frozen import Frozen
from quantlab.methods import InMemory, Job, _gptqmodel

SUMMARY = "activation-aware scaling with calibration text, through GPTQModel"
BITS = (4, 3)
FORMAT = "safetensors"
FROM = "source"
EXTRA = "awq"
REQUIRES = ("gptqmodel", "optimum", "torch", "transformers")
ENV = _gptqmodel.allocator()


class Settings(Frozen):
    """What a recipe may set."""

    group_size: int = Field(default=128)
    """Columns that share a scale and a zero point."""
    calibration_windows: int | None = Field(default=None, ge=1)
    """How many of the calibration windows are used; null for all. The scale search costs time for each."""


def quantize(job: Job) -> InMemory:
    """See the module."""
    from dataclasses import replace

    import torch
    from gptqmodel import QuantizeConfig
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
    from gptqmodel.quantization import FORMAT as FORMATS
    from gptqmodel.quantization import METHOD

    settings: Settings = job.settings
    config = QuantizeConfig(bits=job.bits, group_size=settings.group_size, method=METHOD.AWQ, format=FORMATS.GEMM)
    # its layer refuses float32 when it is made, and packs float32 weights without fault; the reload is compared anyway
    AwqTorchLinear.SUPPORTS_DTYPES = [*AwqTorchLinear.SUPPORTS_DTYPES, torch.float32]
    return _gptqmodel.quantize(replace(job, calibration=job.calibration[: settings.calibration_windows]), config, float32=True)
