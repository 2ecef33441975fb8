"""gptq: weights rounded column by column, the error pushed into the columns to come (Frantar et al. 2023)."""

from __future__ import annotations

from pydantic import Field

from quantlab.frozen import Frozen
from quantlab.methods import InMemory, Job

SUMMARY = "error-compensating rounding with calibration text, through GPTQModel"
BITS = (8, 4, 3, 2)
FORMAT = "safetensors"
FROM = "source"
EXTRA = "gptq"
REQUIRES = ("gptqmodel", "optimum", "torch", "transformers")
ENV: dict[str, str] = {}


class Settings(Frozen):
    """What a recipe may set."""

    group_size: int = Field(default=128)
    """Columns that share a scale and a zero point; -1 for the whole row."""
    act_order: bool = False
    """Quantize the columns with the largest activations first (better at few bits, slower to run)."""
    symmetric: bool = True
    damp_percent: float = Field(default=0.05, gt=0, lt=1)
    calibration_windows: int | None = Field(default=None, ge=1)
    """How many of the calibration windows are used; null for all."""


def quantize(job: Job) -> InMemory:
    """See the module."""
    from dataclasses import replace

    from gptqmodel import QuantizeConfig

    from quantlab.methods import _gptqmodel

    settings: Settings = job.settings
    config = QuantizeConfig(
        bits=job.bits,
        group_size=settings.group_size,
        desc_act=settings.act_order,
        sym=settings.symmetric,
        damp_percent=settings.damp_percent,
    )
    return _gptqmodel.quantize(replace(job, calibration=job.calibration[: settings.calibration_windows]), config, float32=True)
