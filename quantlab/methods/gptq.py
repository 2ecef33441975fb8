"""Round weights column by column, pushing the error into the following columns (Frantar et al. 2023):
GPTQ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.frozen import Frozen
from quantlab.methods import _gptqmodel
from quantlab.methods._by_block import needs_by_block
from quantlab.methods._contract import InMemory, Job, Method, Needs, Serving
from quantlab.methods._grouped import grouped_bytes

_MARLIN_BITS = (4, 8)
"""Widths of vLLM's GPTQ kernels, symmetric alone (TYPE_MAP in auto_gptq.py)."""
_COLUMN_INDEX_BYTES = 4
"""g_idx: an int32 per column."""


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


class Gptq(Method):
    """GPTQ through GPTQModel."""

    name = "gptq"
    summary = "error-compensating rounding with calibration text, through GPTQModel"
    bits = (8, 4, 3, 2)
    extra = "gptq"
    requires = ("gptqmodel", "optimum", "torch", "transformers")
    Settings = Settings
    loaded_by = ("gptqmodel",)
    marks = ("gptq",)
    colour = "#d55e00"

    def quantize(self, job: Job) -> InMemory:
        """Quantize with the calibration windows that the settings name."""
        from gptqmodel import QuantizeConfig

        settings: Settings = job.settings
        config = QuantizeConfig(
            bits=job.bits,
            group_size=settings.group_size,
            desc_act=settings.act_order,
            sym=settings.symmetric,
            damp_percent=settings.damp_percent,
        )
        windows = job.calibration[: settings.calibration_windows]
        return _gptqmodel.quantize(replace(job, calibration=windows), config, "gptq_torch", float32=True)

    def memory(self, parameters: int, bits: int) -> Needs:
        """The unquantized model in the machine's memory, one block at a time on the device."""
        return needs_by_block(parameters, bits)

    def why_left(self, count: ParameterCount, matrix: Matrix) -> str | None:
        """Why a matrix stays in 16 bits: what GPTQModel leaves alone."""
        return super().why_left(count, matrix) or _gptqmodel.why_left(count, matrix)

    def matrix_bytes(self, matrix: Matrix, bits: int, settings: Any) -> int:
        """Bytes of qweight, qzeros, scales and g_idx."""
        return grouped_bytes(matrix, bits, settings.group_size) + _COLUMN_INDEX_BYTES * matrix.in_features

    def serving(self, bits: int, source: str) -> Serving:
        """vLLM's Marlin kernel."""
        if bits not in _MARLIN_BITS:
            return self.no_kernel(bits)
        note = "vLLM loads symmetric GPTQ alone: keep `symmetric: true` in the recipe"
        return Serving(("--quantization", "gptq_marlin"), (note,))


METHOD = Gptq()
